"""The cache of decoded pictures: kills, races, full disks, damaged and changed files."""

import errno
import json
import os
import pathlib
import pwd
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple

import filelock
import numpy as np
import pytest
from picture_trees import celeba_records, jpeg, write_celeba
from PIL import Image

from vaejax.config import DataConfig
from vaejax.data import open_dataset
from vaejax.data.cache import npy, store
from vaejax.data.sources.opening import open_source
from vaejax.errors import UserError

OPEN = """
import json, sys
from vaejax.config import DataConfig
from vaejax.data import open_dataset
settings = json.loads(sys.argv[1])
dataset = open_dataset(DataConfig(**settings | {"image_size": tuple(settings["image_size"])}))
print(json.dumps(dataset.fingerprint))
"""


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    """Returns a directory of 1,500 JPEG files, enough to interrupt a build of their cache."""
    root = tmp_path_factory.mktemp("many") / "faces"
    root.mkdir()
    pictures = [jpeg(number) for number in range(50)]
    for number in range(1500):
        # Decoders ignore bytes after the end of a JPEG; they make each file unique.
        (root / f"{number:05d}.jpg").write_bytes(pictures[number % 50] + str(number).encode())
    return root


def settings_for(faces, tmp_path, **more):
    return {
        "source": "folder",
        "path": str(faces),
        "crop": "center",
        "image_size": (64, 64),
        "cache_dir": str(tmp_path / "cache"),
        "decode_threads": 1,
    } | more


def start(settings):
    """Starts a process that opens the data set, and prints its fingerprint as JSON."""
    command = [sys.executable, "-c", OPEN, json.dumps(settings)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.005)


def test_killed_half_way_then_built_again(faces, tmp_path):
    settings = settings_for(faces, tmp_path)
    folder = tmp_path / "cache"
    process = start(settings)
    wait_until(lambda: any(p.stat().st_size > 10**6 for p in folder.glob("*.building/pool.npy")))
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert list(folder.glob("*.building")), "killed too late for this test"
    assert not list(folder.glob("*/meta.json"))

    # The build of another data set removes what the killed build left.
    small = tmp_path / "small"
    small.mkdir()
    (small / "a.jpg").write_bytes(jpeg(0))
    (folder / "house.building").mkdir()  # not named by a cache key, so it is kept
    open_dataset(
        DataConfig(**settings | {"path": str(small), "holdout": (0.0, 0.0)}), progress=False
    )
    assert [path.name for path in folder.glob("*.building")] == ["house.building"]

    dataset = open_dataset(DataConfig(**settings), progress=False)
    assert sum(len(split.images) for split in dataset.splits.values()) == 1500
    elsewhere = settings | {"cache_dir": str(tmp_path / "other"), "decode_threads": 2}
    whole = open_dataset(DataConfig(**elsewhere), progress=False)
    assert dataset.fingerprint == whole.fingerprint


def test_two_processes_build_one_cache(faces, tmp_path):
    settings = settings_for(faces, tmp_path)
    processes = [start(settings), start(settings)]
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert outputs[0][0] == outputs[1][0]
    assert sum("preparing:" in told for _, told in outputs) == 1, "exactly one process must build"
    left = {path.name.partition(".")[2] for path in (tmp_path / "cache").iterdir()}
    assert left <= {"", "lock"}
    assert len(list((tmp_path / "cache").glob("*/meta.json"))) == 1


def test_a_waiting_process_says_so(faces, tmp_path):
    settings = settings_for(faces, tmp_path)
    config = DataConfig(**settings)
    key = store.cache_key(config, open_source(config))
    (tmp_path / "cache").mkdir()
    with filelock.FileLock(tmp_path / "cache" / f"{key}.lock"):
        process = start(settings)
        assert "another process is preparing these pictures" in process.stderr.readline()
    _, told = process.communicate(timeout=120)
    assert process.returncode == 0
    assert "preparing: 1,500 of 1,500 pictures" in told


def small_tree(tmp_path, **more):
    root = tmp_path / "data"
    if not root.exists():
        write_celeba(root, celeba_records(), pictures="folder")
    settings = {"source": "celeba", "path": str(root), "crop": "nvae148", "image_size": (32, 32)}
    return DataConfig(**settings | {"cache_dir": str(tmp_path / "cache")} | more)


def key_of(config):
    return store.cache_key(config, open_source(config))


def test_second_opening_decodes_nothing(tmp_path, monkeypatch):
    config = small_tree(tmp_path)
    first = open_dataset(config, progress=False)
    monkeypatch.setattr(store, "build", lambda *_: pytest.fail("built again"))
    second = open_dataset(config, progress=False)
    assert first.fingerprint == second.fingerprint
    assert isinstance(second.splits["train"].images, np.memmap)


def test_key_changes_with_whatever_changes_the_pixels(tmp_path):
    config = small_tree(tmp_path)
    keys = {key_of(config)}
    for change in (
        {"image_size": (40, 40)},
        {"channels": 1},
        {"crop": "wae140"},
        {"max_pixels": 10**6},
    ):
        keys.add(key_of(small_tree(tmp_path, **change)))
    picture = tmp_path / "data" / "img_align_celeba" / "000001.jpg"
    os.utime(picture, ns=(0, 12345))
    keys.add(key_of(config))
    picture.write_bytes(jpeg(77))
    keys.add(key_of(config))
    picture.rename(picture.with_name("000099.jpg"))
    keys.add(key_of(config))
    os.utime(tmp_path / "data" / "list_attr_celeba.txt", ns=(0, 12345))
    keys.add(key_of(config))
    assert len(keys) == 9
    assert key_of(small_tree(tmp_path, decode_threads=3)) in keys


def overwrite(path, start):
    """Overwrites the beginning of a file; its size stays the same."""
    content = path.read_bytes()
    path.write_bytes(start + content[len(start) :])


def test_a_damaged_cache_is_built_again(tmp_path):
    config = small_tree(tmp_path)
    before = open_dataset(config, progress=False)
    folder = pathlib.Path(before.report["file"]).parent
    for damage in (
        lambda: os.truncate(folder / "train.npy", 1000),
        lambda: (folder / "valid.npz").unlink(),
        lambda: (folder / "meta.json").write_text("{"),
        lambda: (folder / "meta.json").write_text("[]"),
        lambda: overwrite(folder / "train.npy", b"no array"),
        lambda: overwrite(folder / "test.npz", bytes(200)),
    ):
        damage()
        assert open_dataset(config, progress=False).fingerprint == before.fingerprint


def test_too_small_a_disk_is_noticed_before_starting(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 10, 1000))
    with pytest.raises(
        UserError, match=r"0\.\d MB free, but 12 pictures need 1\.\d MB: free space"
    ):
        open_dataset(small_tree(tmp_path), progress=False)
    assert not list((tmp_path / "cache").glob("*.building"))


def test_a_disk_that_fills_up_meanwhile(tmp_path, monkeypatch):
    def full(self, rows):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(npy.NpyWriter, "append", full)
    with pytest.raises(UserError, match="is full: free space"):
        open_dataset(small_tree(tmp_path), progress=False)
    assert not list((tmp_path / "cache").glob("*.building"))


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EACCES, errno.EIO, errno.ENOMEM])
def test_a_cache_that_cannot_be_opened_now_is_not_removed(tmp_path, monkeypatch, number):
    config = small_tree(tmp_path)
    first = open_dataset(config, progress=False)

    def refuse(file, **_):
        raise OSError(number, os.strerror(number), str(file))

    with monkeypatch.context() as patch:
        patch.setattr(np, "load", refuse)
        with pytest.raises(UserError, match="cannot be used") as said:
            open_dataset(config, progress=False)
    assert str(said.value).startswith("config.data.cache_dir=") and "\n" not in str(said.value)
    monkeypatch.setattr(store, "build", None)  # building again would fail
    assert open_dataset(config, progress=False).fingerprint == first.fingerprint


def test_too_little_memory_to_open_a_cache_does_not_remove_it(tmp_path, monkeypatch):
    config = small_tree(tmp_path)
    open_dataset(config, progress=False)

    def refuse(*_, **__):
        raise MemoryError

    monkeypatch.setattr(np, "load", refuse)
    with pytest.raises(MemoryError):
        open_dataset(config, progress=False)
    assert (tmp_path / "cache" / key_of(config) / "train.npy").is_file()


def test_a_picture_that_is_set_aside_has_no_remark(tmp_path):
    """Opens two animations; the size of one does not fit the crop, so it is set aside."""
    for name, size in (("a", (178, 218)), ("b", (100, 100))):
        first, second = (Image.new("RGB", size, colour) for colour in ("red", "blue"))
        first.save(tmp_path / f"{name}.gif", save_all=True, append_images=[second])
    settings = {"source": "folder", "path": str(tmp_path), "crop": "ddim128", "holdout": (0.0, 0.0)}
    config = DataConfig(**settings, cache_dir=str(tmp_path / "cache"))
    report = open_dataset(config, progress=False).report
    assert list(report["set_aside"]) == ["b.gif"] and list(report["remarks"]) == ["a.gif"]


def test_a_cache_dir_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    config = small_tree(tmp_path, cache_dir=str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"cannot be used \(a file lies in its place\)"):
        open_dataset(config, progress=False)


@pytest.mark.parametrize("place", ["a file", "below a file", "dangling link"])
def test_a_cache_dir_that_cannot_be_is_named_by_what_the_user_sets(tmp_path, place):
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to("nowhere/at/all")
    places = {"a file": "file", "below a file": "file/deep", "dangling link": "link"}
    path = str(tmp_path / places[place])
    with pytest.raises(UserError) as caught:
        open_dataset(
            small_tree(tmp_path, cache_dir=path), progress=False, cache_setting="--cache_dir"
        )
    assert str(caught.value).startswith(f"--cache_dir={path!r} cannot be used (")
    assert str(caught.value).endswith(
        "): set --cache_dir to a directory that can be read and written"
    )


@pytest.mark.parametrize(
    "error",
    [
        NotImplementedError("FileSystem does not appear to support flock"),
        OSError(errno.ENOLCK, os.strerror(errno.ENOLCK)),
        OSError(errno.ENOSYS, os.strerror(errno.ENOSYS)),
    ],
    ids=["filelock's own", "ENOLCK", "ENOSYS"],
)
def test_a_file_system_without_locks_is_told_and_what_lies_there_is_used(
    tmp_path, monkeypatch, error
):
    def refuse(*arguments, **options):
        raise error

    def read_only(*arguments, **options):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    config = small_tree(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(filelock.FileLock, "acquire", refuse)
        with pytest.raises(UserError, match=r"cannot be used \((No locks|Function not impl)"):
            open_dataset(config, progress=False)
    before = open_dataset(config, progress=False)
    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    monkeypatch.setattr(pathlib.Path, "touch", read_only)
    monkeypatch.setattr(pathlib.Path, "replace", read_only)
    after = open_dataset(config, progress=False)
    assert after.fingerprint == before.fingerprint


def test_without_a_home_directory_the_remedy_is_told(monkeypatch):
    def no_such_user(number):
        raise KeyError(number)

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", no_such_user)
    with pytest.raises(UserError, match=r"no home directory.*--config.data.cache_dir or XDG"):
        store.cache_root(DataConfig())
    assert store.cache_root(DataConfig(cache_dir="/here")) == pathlib.Path("/here")


def test_nothing_usable_names_the_commonest_reason(tmp_path):
    root = tmp_path / "faces"
    root.mkdir()
    for number in range(5):
        (root / f"{number}.jpg").write_bytes(b"" if number else b"hello")
    config = DataConfig(
        source="folder", path=str(root), crop="center", cache_dir=str(tmp_path / "cache")
    )
    message = r"all 5 pictures had to be set aside \(4 × empty file; 1 × not a picture\)"
    with pytest.raises(UserError, match=message) as caught:
        open_dataset(config, progress=False)
    report = str(caught.value).partition("all reasons: ")[2].rstrip(")")
    assert len(json.loads(pathlib.Path(report).read_text())) == 5
    assert "\n" not in str(caught.value)


def test_default_cache_directory(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert store.cache_root(DataConfig()) == pathlib.Path("/somewhere/vaejax")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert store.cache_root(DataConfig()) == pathlib.Path.home() / ".cache" / "vaejax"


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32])
def test_parting_rows_in_place(dtype, tmp_path, monkeypatch):
    monkeypatch.setattr(npy, "_CHUNK_BYTES", 64)  # the rows are moved in several pieces
    random = np.random.default_rng(0)
    rows = random.integers(0, 256, (100, 4, 5)).astype(dtype)
    names = random.choice(["train", "valid", "test"], 100)
    with npy.NpyWriter(tmp_path / "pool.npy", (4, 5), dtype) as writer:
        for start_row in range(0, 100, 7):
            writer.append(rows[start_row : start_row + 7])
    npy.part(tmp_path / "pool.npy", list(names))
    for name in ("train", "valid", "test"):
        kept = np.load(tmp_path / f"{name}.npy")
        np.testing.assert_array_equal(kept, rows[names == name], strict=True)
        assert npy.sha256(np.load(tmp_path / f"{name}.npy")) == npy.sha256(rows[names == name])
    assert not (tmp_path / "pool.npy").exists()


@pytest.mark.skipif(not pathlib.Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_memory_stays_flat_while_building(faces, tmp_path):
    """Building a cache of 115 MB must not hold it in memory.

    The peak of RssAnon, which does not count pages of files, is compared with that of a build of
    one picture.
    """
    one = tmp_path / "one"
    one.mkdir()
    (one / "a.jpg").write_bytes(jpeg(0))
    peaks = []
    for root in (one, faces):
        settings = settings_for(root, tmp_path, image_size=(160, 160), holdout=(0.0, 0.0))
        command = [sys.executable, "-c", WATCHED_OPEN, json.dumps(settings)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout.split()[-1]) / 1024)
    assert peaks[1] - peaks[0] < 40, f"peak MiB for 1 and 1500 pictures: {peaks}"


WATCHED_OPEN = f"""
import threading, time
peak = 0
def watch():
    global peak
    while True:
        status = open("/proc/self/status").read()
        peak = max(peak, int(status.partition("RssAnon:")[2].split()[0]))
        time.sleep(0.005)
threading.Thread(target=watch, daemon=True).start()
{OPEN}
time.sleep(0.02)
print(peak)
"""
