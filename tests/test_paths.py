"""URLs given as paths are refused with a one-line message, before any file is created."""

import pathlib

import pytest
from commands import command
from hypothesis import given
from hypothesis import strategies as st
from tiny import CONFIG_FILE, tiny

import vaejax
from vaejax.data import open_dataset
from vaejax.errors import UserError
from vaejax.files.paths import local_path

SCHEMES = ("gs", "s3", "s3a", "hdfs", "https", "http", "ftp", "file", "az", "abfss", "GS", "memory")
CONFIG = f"--config={CONFIG_FILE}"


@given(scheme=st.sampled_from(SCHEMES), rest=st.text(max_size=20), slashes=st.integers(1, 3))
def test_a_url_is_refused_with_a_remedy(scheme, rest, slashes):
    address = f"{scheme}:{'/' * slashes}{rest}"
    with pytest.raises(UserError) as error:
        local_path("--workdir", address)
    assert f"--workdir={address} is an address" in str(error.value)
    assert any(word in str(error.value) for word in ("mount it", "download it", "write /"))


@pytest.mark.parametrize(
    ("address", "path"),
    [("file:///a%20b/c", "/a b/c"), ("file://localhost/x", "/x"), ("file:/x", "/x")],
)
def test_the_remedy_names_the_path_of_a_file_url(address, path):
    with pytest.raises(UserError, match=f"write {path}$"):
        local_path("--out", address)


def test_a_path_with_a_nul_character_is_refused():
    with pytest.raises(UserError, match=r"workdir=.* is no path"):
        vaejax.load("run\0")


@given(parts=st.lists(st.from_regex(r"[\w .+-]+", fullmatch=True), min_size=1, max_size=4))
def test_a_path_is_kept_unchanged(parts):
    assert local_path("--out", "/".join(parts)) == pathlib.Path("/".join(parts))


@pytest.mark.parametrize("path", ["C:/faces", "a:b", "runs/12:30", "./gs:/x", "~"])
def test_paths_that_resemble_urls_are_accepted(path):
    assert local_path("--out", path) == pathlib.Path(path).expanduser()


def test_an_unknown_home_directory_is_refused():
    with pytest.raises(UserError, match="without ~"):
        local_path("--out", "~nobody-of-this-name/x")


def test_a_cache_in_an_unknown_home_directory_is_refused():
    config = tiny(data={"cache_dir": "~nobody-of-this-name/x"}).data
    with pytest.raises(UserError, match=r"config\.data\.cache_dir=~nobody.*without ~"):
        open_dataset(config, progress=False)


# The module, its other flags, and the flag that names a path.
PLACES = [
    ("main", [CONFIG], "workdir"),
    ("main", [CONFIG, "--config.data.source=folder"], "config.data.path"),
    ("main", [CONFIG], "config.data.cache_dir"),
    ("prepare", [CONFIG], "config.data.manual_dir"),
    ("prepare", [CONFIG], "preview"),
    ("sample", [], "workdir"),
    ("evaluate", [], "workdir"),
    ("fit", ["--prior=gaussian"], "workdir"),
    ("explore", [], "workdir"),
    ("aot", [CONFIG], "out"),
]


@pytest.mark.parametrize(("module", "flags", "name"), PLACES)
def test_every_flag_that_names_a_path_refuses_a_url(module, flags, name, tmp_path):
    result = command(module, *flags, f"--{name}=gs://bucket/place", cwd=tmp_path)
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"error: {'' if name.startswith('config') else '--'}{name}=")
    assert "is an address" in line and "gcsfuse" in line
    assert list(tmp_path.iterdir()) == []


def test_the_python_api_refuses_a_url():
    with pytest.raises(UserError, match="is an address"):
        vaejax.load("s3://bucket/run")
