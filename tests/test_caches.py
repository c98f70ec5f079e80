"""Listing and pruning of the caches of pictures and compiled programs by `vaejax.prepare`."""

import os
import pathlib
import shutil
import time

import filelock
import numpy as np
import pytest
from commands import command
from picture_trees import jpeg
from tiny import CONFIG_FILE

from vaejax.config import DataConfig
from vaejax.data import open_dataset
from vaejax.data.cache import inventory
from vaejax.data.cache.rows import RowCache
from vaejax.errors import UserError

DAYS = 24 * 60 * 60


@pytest.fixture(scope="module")
def faces(tmp_path_factory) -> pathlib.Path:
    """Returns a directory of three pictures."""
    directory = tmp_path_factory.mktemp("faces")
    for number in range(3):
        (directory / f"{number}.jpg").write_bytes(jpeg(number))
    return directory


@pytest.fixture(scope="module")
def built(faces, tmp_path_factory) -> pathlib.Path:
    """Builds the cache of `faces`, and returns its directory.

    Another process builds it: a process that has opened a cache marks it as in use until it ends.
    """
    directory = tmp_path_factory.mktemp("built")
    result = command(
        "prepare", f"--config={CONFIG_FILE}", "--config.data.source=folder",
        "--config.data.holdout=(0,0)", f"--config.data.path={faces}",
        f"--config.data.cache_dir={directory}",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    (file,) = directory.glob("*/train.npy")
    return file.parent


@pytest.fixture
def root(tmp_path, monkeypatch) -> pathlib.Path:
    """Returns the path of a new cache directory of the user, which does not exist yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    return tmp_path / "xdg" / "vaejax"


def length(folder: pathlib.Path) -> int:
    """Returns the number of training pictures in a cache."""
    return len(np.load(folder / "train.npy", mmap_mode="r"))


def add_cache(root: pathlib.Path, built: pathlib.Path, key: str, age: float) -> pathlib.Path:
    """Copies a cache to `root` under another key, last used `age` days ago."""
    folder = shutil.copytree(built, root / key)
    set_age(folder, age)
    return folder


def set_age(folder: pathlib.Path, days: float) -> None:
    then = time.time() - days * DAYS
    os.utime(folder / "last_used", (then, then))


def write_programs(root: pathlib.Path, **ages: float) -> None:
    """Writes files like those of JAX's compilation cache, by name and days since the last use."""
    (root / "xla").mkdir(parents=True)
    for name, days in ages.items():
        for suffix in ("cache", "atime"):
            path = root / "xla" / f"{name}-{suffix}"
            path.write_bytes(bytes(1_000_000))
            os.utime(path, (time.time() - days * DAYS,) * 2)


def test_caches_are_listed_in_the_directory_of_the_config(built, root):
    result = command("prepare", "--list")
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"nothing is cached in {root}\n"
    write_programs(root, jit_step=2.0, jit_init=9.0)
    flags = [f"--config={CONFIG_FILE}", f"--config.data.cache_dir={built.parent}"]
    result = command("prepare", *flags, "--list")
    assert result.returncode == 0, result.stderr
    header, _, *rows = result.stdout.splitlines()
    columns = [cell.strip() for cell in header.strip("|").split("|")]
    table = [dict(zip(columns, map(str.strip, row.strip("|").split("|")))) for row in rows]
    assert table[0].pop("MB")
    assert table[0] == {
        "what": "folder: 3 pictures 28x28 RGB, crop center",
        "last used": time.strftime("%Y-%m-%d"),
        "path": str(built),
    }
    assert table[1].pop("last used")
    assert table[1:] == [{"what": "2 compiled programs", "MB": "2", "path": str(root / "xla")}]


def test_pruning_removes_what_was_long_unused_and_is_not_in_use(faces, built, root):
    used = add_cache(root, built, built.name, age=99)
    building, old, new = (
        add_cache(root, built, digit * 24, age) for digit, age in (("1", 99), ("2", 31), ("3", 29))
    )
    write_programs(root, old=31, new=29)
    killed = root / f"{'a' * 24}.building"
    killed.mkdir()
    os.utime(killed, (0, 0))
    foreign = root / "foreign"
    foreign.mkdir()
    (foreign / "notes.txt").write_text("not of vaejax")
    os.utime(foreign, (0, 0))

    config = DataConfig(
        source="folder", path=str(faces), image_size=(28, 28), crop="center", holdout=(0.0, 0.0)
    )
    dataset = open_dataset(config, progress=False)
    assert pathlib.Path(dataset.report["file"]).parent == used
    assert (used / "last_used").stat().st_mtime > time.time() - DAYS
    set_age(used, 99)

    with filelock.FileLock(root / f"{building.name}.lock"):
        result = command("prepare", "--prune=30d")
    assert result.returncode == 0, result.stderr
    assert f"{used} stays (in use)" in result.stderr
    assert f"{building} stays (in use)" in result.stderr
    assert "removed 3 from the caches, which frees 1.0 MB" in result.stderr
    assert not old.exists() and not killed.exists()
    assert length(used) == length(building) == length(new) == 3
    assert dataset.splits["train"].images.any()
    assert (foreign / "notes.txt").exists()
    left = {path.name for path in (root / "xla").iterdir() if not path.name.startswith(".")}
    assert left == {"new-cache", "new-atime"}

    result = command("prepare", "--prune=all", "--list")
    assert "removed 3 from the caches" in result.stderr
    _, _, row = result.stdout.splitlines()
    assert str(used) in row
    assert not list(root.glob("*.building"))


@pytest.mark.parametrize("text", ["30", "d", "-1d", "0x3d", "everything", ""])
def test_an_age_that_is_no_number_of_days_is_refused(text):
    with pytest.raises(
        UserError, match=f"--prune={text} must be a number of days such as 30d, or a"
    ):
        inventory.days_of(text)


def test_a_mistaken_flag_is_one_line():
    result = command("prepare", "--prune=30")
    assert result.returncode == 2
    assert result.stderr == "error: --prune=30 must be a number of days such as 30d, or all\n"


def test_features_are_listed_and_pruned_by_their_last_use(root):
    cache = RowCache(root)
    for name in ("old", "new"):
        cache.rows(name, lambda: [np.ones((4, 3), np.float32)])
    old, new = sorted((root / "features").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    os.utime(old, (0, 0))
    (line,) = inventory.table(root, root / "xla")
    assert line["what"] == "features of real pictures" and line["path"] == str(root / "features")
    assert [stored.path for stored, _ in inventory.prune(root, root / "xla", 30)] == [old]
    # What is read again counts as used.
    os.utime(new, (0, 0))
    cache.rows("new", lambda: pytest.fail("computed again"))
    assert not list(inventory.prune(root, root / "xla", 30)) and new.exists()


def test_a_program_that_cannot_be_removed_is_named(root, monkeypatch):
    write_programs(root, first=40, second=41)
    unlink = pathlib.Path.unlink

    def fail(path, **how):
        if path.name.startswith("second"):
            raise PermissionError(13, "Permission denied", str(path))
        unlink(path, **how)

    monkeypatch.setattr(pathlib.Path, "unlink", fail)
    handled = list(inventory.prune(root, root / "xla", 30))
    assert [(stored.path.name, reason) for stored, reason in handled] == [
        ("first-cache", ""),
        ("second-cache", "compiled programs: Permission denied"),
    ]
