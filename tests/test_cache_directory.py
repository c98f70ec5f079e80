"""The directory of the cache: full disks, missing permissions, no locks, no home directory."""

import errno
import os
import pathlib
import pwd
import shutil
from collections import namedtuple

import filelock
import numpy as np
import pytest
from picture_trees import jpeg

from vaejax.config import DataConfig
from vaejax.data import open_dataset
from vaejax.data.cache import npy, store
from vaejax.errors import UserError


@pytest.fixture
def config(tmp_path):
    """Returns the config of a data set of three pictures, whose cache is not built yet."""
    faces = tmp_path / "faces"
    faces.mkdir()
    for number in range(3):
        (faces / f"{number}.jpg").write_bytes(jpeg(number, 40, 40))
    return config_for(tmp_path, "cache")


def config_for(tmp_path, cache_dir):
    return DataConfig(
        source="folder",
        path=str(tmp_path / "faces"),
        crop="center",
        image_size=(32, 32),
        holdout=(0.0, 0.0),
        cache_dir=str(tmp_path / cache_dir),
    )


def raising(error):
    def fail(*_, **__):
        raise error

    return fail


def system_error(number):
    return OSError(number, os.strerror(number))


def test_a_disk_that_is_too_small_is_noticed_before_the_build(config, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 10, 1000))
    with pytest.raises(UserError, match=r"0\.\d MB free, but 3 pictures need 1\.\d MB: free space"):
        open_dataset(config, progress=False)
    assert not list((tmp_path / "cache").glob("*.building"))


def test_a_disk_that_fills_up_during_the_build_is_named(config, tmp_path, monkeypatch):
    monkeypatch.setattr(npy.NpyWriter, "append", raising(system_error(errno.ENOSPC)))
    with pytest.raises(UserError, match=r"^config\.data\.cache_dir=.* is full: free space"):
        open_dataset(config, progress=False)
    assert not list((tmp_path / "cache").glob("*.building"))


def test_a_cache_that_cannot_be_opened_now_is_not_removed(config, monkeypatch):
    first = open_dataset(config, progress=False)
    with monkeypatch.context() as patch:
        patch.setattr(np, "load", raising(system_error(errno.EMFILE)))
        with pytest.raises(UserError, match="cannot be used") as raised:
            open_dataset(config, progress=False)
    message = str(raised.value)
    assert message.startswith("config.data.cache_dir=") and "\n" not in message
    monkeypatch.setattr(store, "build", None)  # building again would fail
    assert open_dataset(config, progress=False).fingerprint == first.fingerprint


def test_too_little_memory_to_open_a_cache_does_not_remove_it(config, monkeypatch):
    report = open_dataset(config, progress=False).report
    monkeypatch.setattr(np, "load", raising(MemoryError()))
    with pytest.raises(MemoryError):
        open_dataset(config, progress=False)
    assert pathlib.Path(report["file"]).with_name("train.npy").is_file()


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("file", "a file lies in its place"),
        ("file/below", "a directory of this path is a file"),
        ("link", "a file lies in its place"),
    ],
)
def test_a_cache_directory_that_cannot_be_made_is_named_by_its_setting(
    config, tmp_path, place, reason
):
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to("nowhere/at/all")
    other = config_for(tmp_path, place)
    with pytest.raises(UserError) as raised:
        open_dataset(other, progress=False, cache_setting="--cache_dir")
    assert str(raised.value) == (
        f"--cache_dir={other.cache_dir!r} cannot be used ({reason}): set --cache_dir to a "
        "directory that can be read and written"
    )


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (NotImplementedError("FileSystem does not appear to support flock"), errno.ENOLCK),
        (system_error(errno.ENOSYS), errno.ENOSYS),
    ],
    ids=["filelock's own", "ENOSYS"],
)
def test_on_a_file_system_without_locks_only_a_finished_cache_is_used(
    config, monkeypatch, error, number
):
    with monkeypatch.context() as patch:
        patch.setattr(filelock.FileLock, "acquire", raising(error))
        with pytest.raises(UserError, match=rf"cannot be used \({os.strerror(number)}\)"):
            open_dataset(config, progress=False)
    before = open_dataset(config, progress=False)
    monkeypatch.setattr(filelock.FileLock, "acquire", raising(error))
    read_only = raising(system_error(errno.EROFS))
    monkeypatch.setattr(pathlib.Path, "touch", read_only)
    monkeypatch.setattr(pathlib.Path, "replace", read_only)
    assert open_dataset(config, progress=False).fingerprint == before.fingerprint


def test_the_default_directory_is_in_the_users_cache(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert store.cache_root(DataConfig()) == pathlib.Path("/somewhere/vaejax")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert store.cache_root(DataConfig()) == pathlib.Path.home() / ".cache" / "vaejax"


def test_without_a_home_directory_the_remedy_is_named(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", raising(KeyError(0)))
    with pytest.raises(UserError, match=r"no home directory.*--config.data.cache_dir or XDG"):
        store.cache_root(DataConfig())
    assert store.cache_root(DataConfig(cache_dir="/here")) == pathlib.Path("/here")
