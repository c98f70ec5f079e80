"""Decoded pictures on disk: `<cache_dir>/<key>/`, built once, then only memory-mapped.

The key is cheap (no picture is read for it) and covers everything that changes the pixels. A
directory with its final name is complete: it is built under another name, forced to disk, and
renamed. One process builds; others wait for its lock.
"""

import contextlib
import hashlib
import itertools
import json
import os
import pathlib
import re
import shutil
from typing import NamedTuple

import filelock
import numpy as np
import PIL

from vaejax.config import DataConfig
from vaejax.data.cache import in_use, npy
from vaejax.data.cache.building import AllSetAside, build, split_names
from vaejax.data.cache.disk import SETTING, Disk, sync_directory, write_json
from vaejax.data.items import Contents, Source
from vaejax.data.pictures import crops
from vaejax.data.pictures.formats import readers
from vaejax.data.sources.file_tree import UNREADABLE
from vaejax.data.sources.picture_filter import CACHE_TAG, CACHE_TAG_CONTENT
from vaejax.errors import UserError, is_out_of_memory, is_out_of_reach
from vaejax.files.atomic import replacing
from vaejax.files.paths import local_path, user_cache

_LAYOUT = 2  # version of directory layout and decoding; a change rebuilds all caches
_META = "meta.json"
_REPORT = "set_aside.json"
BUILDING = ".building"
"""Suffix of a cache's name while it is being built."""
KEY = re.compile("[0-9a-f]{24}")
"""Pattern of the names of caches, which are their keys."""


def cache_root(config: DataConfig) -> pathlib.Path:
    """Returns `config.data.cache_dir`, or the user's default cache directory if that is empty.

    Raises:
      UserError: the setting is not a path, or there is no home directory.
    """
    if config.cache_dir:
        return local_path(SETTING, config.cache_dir).absolute()
    return user_cache()


def cache_key(config: DataConfig, source: Source) -> str:
    """Computes a hash, 24 hexadecimal digits, of everything that changes the arrays.

    It reads no picture.
    """
    material = {
        "layout": _LAYOUT,
        "pillow": PIL.__version__,
        "formats": readers(),
        "kind": source.kind,
        "data": source.signature(),
        "image_size": config.image_size,
        "channels": config.channels,
        "crop": crops.describe(config.crop),
        "holdout": config.holdout,
        "split_seed": config.split_seed,
        "max_pixels": config.max_pixels,
    }
    return hashlib.sha256(json.dumps(material, sort_keys=True).encode()).hexdigest()[:24]


class Cached(NamedTuple):
    """A finished cache.

    Attributes:
      folder: its directory.
      fingerprint: identifies the data, as in `vaejax.data.Dataset`.
      set_aside: pictures that could not be used: name -> reason.
      remarks: what is odd about pictures that are used: name -> remark.
      splits: split -> pictures (memory-mapped), labels by name, and the pictures' names.
    """

    folder: pathlib.Path
    fingerprint: dict
    set_aside: dict[str, str]
    remarks: dict[str, str]
    splits: dict[str, tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]]


def open_or_build(
    config: DataConfig, source: Source, shown: bool, setting: str = SETTING
) -> Cached:
    """Opens the finished cache; builds it first if it is missing or damaged.

    A finished cache is used even where nothing can be written or locked. One is built anew if a
    picture that could not be read then, for instance for want of a permission, can be read now.

    Args:
      config: the data's settings.
      source: the opened source.
      shown: whether to show progress and messages.
      setting: name of the setting by which the user can move the cache, for messages.

    Raises:
      UserError: the disk is too small or not writable, or there is no picture to train on.
    """
    disk = Disk(cache_root(config), setting)
    key = cache_key(config, source)
    folder = disk.root / key
    cached = _load_complete(disk, folder, source)
    if not cached:
        with disk.locked(key, shown):
            # The process that held the lock may just have built it.
            cached = _load_complete(disk, folder, source)
            if not cached:
                with disk.usable():
                    _remove_leftovers(disk.root, key)
                    _build(config, source, disk, folder, shown)
                cached = _load(disk, folder)
    if not cached:
        raise UserError(
            f"{disk}: the cache just written cannot be read back; set {setting} to another disk"
        )
    in_use.mark_used(folder)
    return cached


def write_report(folder: pathlib.Path, reasons: dict[str, str]) -> pathlib.Path | None:
    """Writes the list of what was not used to a JSON file in the cache.

    Args:
      folder: the cache.
      reasons: name -> reason.

    Returns:
      The file's path; None if it cannot be written.
    """
    path = folder / _REPORT
    content = json.dumps(reasons, indent=1)
    try:
        if not path.exists() or path.read_text(encoding="utf-8") != content:
            with replacing(path) as temporary:
                temporary.write_text(content, encoding="utf-8")
    except (OSError, ValueError):
        return None
    return path


def _load_complete(disk: Disk, folder: pathlib.Path, source: Source) -> Cached | None:
    """Opens a cache as `_load` does; returns None also if it lacks a picture that can be read now.

    Where nothing can be written, such a cache is opened all the same.
    """
    cached = _load(disk, folder)
    if not cached or not os.access(disk.root, os.W_OK):
        return cached
    unread = {name for name, why in cached.set_aside.items() if why.startswith(UNREADABLE)}
    chunks = source.contents().chunks(len(unread)) if unread else iter(())
    for item in itertools.chain.from_iterable(chunk.items() for chunk in chunks):
        if item.name in unread:
            with contextlib.suppress(Exception):
                item.read()
                return None
    return cached


def _load(disk: Disk, folder: pathlib.Path) -> Cached | None:
    """Opens a cache; returns None if it is missing or damaged, and is to be built anew.

    Raises:
      UserError: the cache may be whole, but its storage is out of reach or may not be read, or
        the process has too many open files.
      MemoryError: there is not enough memory to open it.
    """
    try:
        meta = json.loads((folder / _META).read_text(encoding="utf-8"))
        if any((folder / name).stat().st_size != size for name, size in meta["bytes"].items()):
            return None
        splits = {split: _load_split(folder, split) for split in split_names(folder)}
        # Caches of version 0.1 have no remarks.
        remarks = meta.get("remarks", {})
        return Cached(folder, meta["fingerprint"], meta["set_aside"], remarks, splits)
    except Exception as error:  # damaged arrays make NumPy raise nearly anything
        if is_out_of_memory(error):
            raise
        if is_out_of_reach(error):
            raise disk.failure(error) from error
        return None


def _load_split(
    folder: pathlib.Path, split: str
) -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]:
    """Memory-maps a split's pictures, and loads its labels and names; all read-only."""
    images = np.load(folder / f"{split}.npy", mmap_mode="r")
    with np.load(folder / f"{split}.npz", allow_pickle=False) as columns:
        arrays = {key: columns[key] for key in columns.files}
    for array in arrays.values():
        array.flags.writeable = False
    names = arrays.pop("names")
    return images, {key.removeprefix("label:"): array for key, array in arrays.items()}, names


def _remove_leftovers(root: pathlib.Path, key: str) -> None:
    """Removes what killed builds left: of this key, whose lock is held, and of unlocked keys."""
    shutil.rmtree(root / key, ignore_errors=True)
    for leftover in root.glob(f"*{BUILDING}"):
        name = leftover.name.removesuffix(BUILDING)
        if not KEY.fullmatch(name):
            continue  # not vaejax's
        if name == key:
            shutil.rmtree(leftover)
            continue
        lock = filelock.FileLock(root / f"{name}.lock")
        with contextlib.suppress(filelock.Timeout), lock.acquire(timeout=0):
            shutil.rmtree(leftover, ignore_errors=True)


def _build(
    config: DataConfig, source: Source, disk: Disk, folder: pathlib.Path, shown: bool
) -> None:
    contents = source.contents()
    disk.check_space(contents.count, _space(config, contents.count))
    building = folder.with_name(folder.name + BUILDING)
    building.mkdir()
    try:
        # The tag keeps programs from backing the cache up, and vaejax from taking it for data.
        (building / CACHE_TAG).write_text(CACHE_TAG_CONTENT)
        set_aside, remarks = build(config, contents, building, shown)
        files = sorted(building.iterdir())
        meta = {
            "fingerprint": _fingerprint(config, source, contents, building),
            "set_aside": set_aside,
            "remarks": remarks,
            "bytes": {path.name: path.stat().st_size for path in files},
        }
        write_json(building / _META, meta)
        sync_directory(building)
        building.rename(folder)
        sync_directory(folder.parent)
    except AllSetAside as error:
        report = folder.with_name(f"{folder.name}.{_REPORT}")
        write_json(report, {**source.left_out, **error.reasons})
        raise UserError(f"{error} (all reasons: {report})") from error
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _fingerprint(
    config: DataConfig, source: Source, contents: Contents, folder: pathlib.Path
) -> dict:
    splits = {}
    for split in split_names(folder):
        images, labels, _ = _load_split(folder, split)
        splits[split] = {
            "count": len(images),
            "sha256": npy.sha256(images),
            "labels": {name: npy.label_sha256(labels[name]) for name in sorted(labels)},
        }
    return {
        "source": source.kind,
        "image_size": list(config.image_size),
        "channels": config.channels,
        "crop": crops.describe(config.crop),
        "splits": splits,
        "attribute_names": list(contents.attribute_names),
    }


def _space(config: DataConfig, count: int) -> float:
    """Estimates the bytes of disk space that building a cache of `count` pictures takes."""
    height, width = config.image_size
    # While the pool is divided, held-out pictures are on disk twice.
    held_out = sum(amount if amount < 1 else amount / max(count, 1) for amount in config.holdout)
    return count * height * width * config.channels * (1.01 + min(held_out, 1.0)) + (1 << 20)
