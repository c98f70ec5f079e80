"""The cache of decoded pictures: its key, reuse, kills, races, damage, and memory."""

import hashlib
import json
import os
import pathlib
import signal
import subprocess
import sys

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

def opened(settings):
    return open_dataset(DataConfig(**settings | {"image_size": tuple(settings["image_size"])}))
"""
PRINT_FINGERPRINT = f"""{OPEN}
print(json.dumps(opened(json.loads(sys.argv[1])).fingerprint))
"""
KILLED_HALF_WAY = f"""
import os, signal
from vaejax.data.cache.npy import NpyWriter

append = NpyWriter.append

def append_and_die(self, rows):
    append(self, rows)
    if self.count >= 100:
        os.kill(os.getpid(), signal.SIGKILL)

NpyWriter.append = append_and_die
{PRINT_FINGERPRINT}
"""
PRINT_MEMORY = f"""{OPEN}
import threading, time

peak = 0

def sample():
    global peak
    status = open("/proc/self/status").read()
    peak = max(peak, int(status.partition("RssAnon:")[2].split()[0]))

def watch():
    while True:
        sample()
        time.sleep(0.005)

threading.Thread(target=watch, daemon=True).start()
for settings in json.loads(sys.argv[1]):
    peak = 0
    opened(settings)
    sample()
    print(peak / 1024)
"""


def write_faces(root, count):
    """Writes JPEG files, each with other bytes, and returns their directory."""
    root.mkdir()
    pictures = [jpeg(number) for number in range(50)]
    for number in range(count):
        # Decoders ignore bytes after the end of a JPEG; they make each file unique.
        (root / f"{number:05d}.jpg").write_bytes(pictures[number % 50] + str(number).encode())
    return root


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    """Returns a directory of 200 JPEG files: the cache is written in several pieces."""
    return write_faces(tmp_path_factory.mktemp("many") / "faces", 200)


def settings_for(faces, tmp_path, **more):
    return {
        "source": "folder",
        "path": str(faces),
        "crop": "center",
        "image_size": (64, 64),
        "cache_dir": str(tmp_path / "cache"),
        "decode_threads": 1,
    } | more


@pytest.fixture(scope="module")
def fingerprint(faces, tmp_path_factory):
    """Returns the fingerprint of `faces` after an uninterrupted build in this process."""
    settings = settings_for(faces, tmp_path_factory.mktemp("reference"), decode_threads=2)
    return open_dataset(DataConfig(**settings), progress=False).fingerprint


def start(script, settings):
    return subprocess.Popen(
        [sys.executable, "-c", script, json.dumps(settings)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_cache_whose_build_was_killed_is_built_again(faces, fingerprint, tmp_path):
    settings = settings_for(faces, tmp_path)
    folder = tmp_path / "cache"
    process = start(KILLED_HALF_WAY, settings)
    process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL
    assert list(folder.glob("*.building/pool.npy")) and not list(folder.glob("*/meta.json"))

    # The build of another data set removes what the killed build left.
    small = write_faces(tmp_path / "small", 1)
    (folder / "house.building").mkdir()  # not named by a cache key, so it is kept
    open_dataset(
        DataConfig(**settings | {"path": str(small), "holdout": (0.0, 0.0)}), progress=False
    )
    assert [path.name for path in folder.glob("*.building")] == ["house.building"]

    dataset = open_dataset(DataConfig(**settings), progress=False)
    assert sum(len(split.images) for split in dataset.splits.values()) == 200
    assert dataset.fingerprint == fingerprint


def test_waiting_processes_share_the_cache_that_one_of_them_builds(faces, fingerprint, tmp_path):
    settings = settings_for(faces, tmp_path)
    folder = tmp_path / "cache"
    folder.mkdir()
    with filelock.FileLock(folder / f"{key_of(DataConfig(**settings))}.lock"):
        processes = [start(PRINT_FINGERPRINT, settings) for _ in range(2)]
        first_lines = [process.stderr.readline() for process in processes]
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    for line in first_lines:
        assert line.startswith("another process is preparing these pictures; waiting for it")
    assert [json.loads(stdout) for stdout, _ in outputs] == [fingerprint] * 2
    builds = ["preparing: 200 of 200 pictures" in stderr for _, stderr in outputs]
    assert sorted(builds) == [False, True], "exactly one process must build"
    assert {path.suffix for path in folder.iterdir()} <= {"", ".lock"}
    assert len(list(folder.glob("*/meta.json"))) == 1


@pytest.mark.skipif(not pathlib.Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_memory_stays_flat_while_building(tmp_path):
    """Building a cache of 69 MB must not hold it in memory.

    The peak of RssAnon, which does not count pages of files, is compared with that of a build of
    one picture.
    """
    more = {"image_size": (160, 160), "holdout": (0.0, 0.0)}
    roots = [write_faces(tmp_path / f"faces{count}", count) for count in (1, 900)]
    process = start(PRINT_MEMORY, [settings_for(root, tmp_path, **more) for root in roots])
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    one, many = map(float, stdout.split())
    assert many - one < 40, f"peak MiB for 1 and 900 pictures: {one}, {many}"


def small_celeba(tmp_path, **more):
    """Returns the config of a data set in CelebA's layout, which is written if it is missing."""
    root = tmp_path / "data"
    if not root.exists():
        write_celeba(root, celeba_records(), pictures="folder")
    settings = {"source": "celeba", "path": str(root), "crop": "nvae148", "image_size": (32, 32)}
    return DataConfig(**settings | {"cache_dir": str(tmp_path / "cache")} | more)


def key_of(config):
    return store.cache_key(config, open_source(config))


def test_a_second_opening_decodes_nothing(tmp_path, monkeypatch):
    config = small_celeba(tmp_path)
    first = open_dataset(config, progress=False)
    monkeypatch.setattr(store, "build", lambda *_: pytest.fail("built again"))
    second = open_dataset(config, progress=False)
    assert first.fingerprint == second.fingerprint
    assert isinstance(second.splits["train"].images, np.memmap)


def test_the_key_changes_with_everything_that_changes_the_pixels(tmp_path):
    config = small_celeba(tmp_path)
    keys = {key_of(config)}
    for change in (
        {"image_size": (40, 40)},
        {"channels": 1},
        {"crop": "wae140"},
        {"max_pixels": 10**6},
    ):
        keys.add(key_of(small_celeba(tmp_path, **change)))
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
    assert key_of(small_celeba(tmp_path, decode_threads=3)) in keys


def overwrite(path, start):
    """Overwrites the beginning of a file; its size stays the same."""
    content = path.read_bytes()
    path.write_bytes(start + content[len(start) :])


def test_a_damaged_cache_is_built_again(tmp_path):
    config = small_celeba(tmp_path)
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


def test_a_picture_that_is_set_aside_has_no_remark(tmp_path):
    """Opens two animations; the size of one does not fit the crop, so it is set aside."""
    for name, size in (("a", (178, 218)), ("b", (100, 100))):
        first, second = (Image.new("RGB", size, colour) for colour in ("red", "blue"))
        first.save(tmp_path / f"{name}.gif", save_all=True, append_images=[second])
    settings = {"source": "folder", "path": str(tmp_path), "crop": "ddim128", "holdout": (0.0, 0.0)}
    config = DataConfig(**settings, cache_dir=str(tmp_path / "cache"))
    report = open_dataset(config, progress=False).report
    assert list(report["set_aside"]) == ["b.gif"] and list(report["remarks"]) == ["a.gif"]


def test_without_a_usable_picture_the_most_frequent_reason_is_named(tmp_path):
    root = tmp_path / "faces"
    root.mkdir()
    for number in range(5):
        (root / f"{number}.jpg").write_bytes(b"" if number else b"hello")
    config = DataConfig(
        source="folder", path=str(root), crop="center", cache_dir=str(tmp_path / "cache")
    )
    message = r"all 5 pictures had to be set aside \(4 × empty file; 1 × not a picture\)"
    with pytest.raises(UserError, match=message) as raised:
        open_dataset(config, progress=False)
    report = str(raised.value).partition("all reasons: ")[2].rstrip(")")
    assert len(json.loads(pathlib.Path(report).read_text())) == 5
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32])
def test_rows_are_divided_among_splits_in_place(dtype, tmp_path, monkeypatch):
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
        assert npy.sha256(kept) == hashlib.sha256(rows[names == name].tobytes()).hexdigest()
    assert not (tmp_path / "pool.npy").exists()
