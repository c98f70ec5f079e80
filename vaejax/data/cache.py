"""Decoded pictures on disk: `<cache_dir>/<key>/`, built once, then only mapped.

The key is cheap (no picture is read for it) and names everything that changes the pixels. A
directory with its final name is complete: it is built under another name, forced to disk, and
renamed. One process builds; others wait for its lock.
"""

import contextlib
import errno
import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Iterator

import filelock
import numpy as np
import PIL

from vaejax.config import DataConfig
from vaejax.config import cache_root as usual_cache_root
from vaejax.data import crops, npy
from vaejax.data.building import AllSetAside, build, split_names
from vaejax.data.records import Contents, Source
from vaejax.errors import UserError
from vaejax.progress import say

_LAYOUT = 1  # of the directory and of the way pictures are made; a change rebuilds all caches
_META = "meta.json"
_BUILDING = ".building"


def cache_root(config: DataConfig) -> pathlib.Path:
    """`config.data.cache_dir`, or the user's usual cache directory."""
    if config.cache_dir:
        return pathlib.Path(config.cache_dir).expanduser().absolute()
    return usual_cache_root()


def cache_key(config: DataConfig, source: Source) -> str:
    """A short name for everything that changes the arrays; reads no picture."""
    material = {
        "layout": _LAYOUT,
        "pillow": PIL.__version__,
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


def open_or_build(config: DataConfig, source: Source, shown: bool) -> pathlib.Path:
    """The directory of the finished cache, built now if it is not there.

    Args:
      config: the data's settings.
      source: the opened source.
      shown: whether to show progress and messages.

    Raises:
      UserError: the disk is too small or not writable, or no picture is usable.
    """
    root = cache_root(config)
    key = cache_key(config, source)
    folder = root / key
    if _is_complete(folder):
        return folder
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _locked(root, key, shown):
            # Whoever held the lock may just have finished.
            if not _is_complete(folder):
                _remove_leftovers(root, key)
                _build(config, source, folder, shown)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                f"config.data.cache_dir={str(root)!r} ran full: free space, or name a larger disk"
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            raise UserError(
                f"config.data.cache_dir={str(root)!r} cannot be written ({error.strerror}): name a"
                " directory that can"
            ) from error
        raise
    return folder


def read_meta(folder: pathlib.Path) -> dict:
    """What the build wrote down: `fingerprint`, and `set_aside` (name -> reason)."""
    meta = json.loads((folder / _META).read_text(encoding="utf-8"))
    meta["set_aside"] = json.loads(report_file(folder).read_text(encoding="utf-8"))
    return meta


def report_file(folder: pathlib.Path) -> pathlib.Path:
    """The list of pictures set aside."""
    return folder / "set_aside.json"


@contextlib.contextmanager
def _locked(root: pathlib.Path, key: str, shown: bool) -> Iterator[None]:
    lock = filelock.FileLock(root / f"{key}.lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        if shown:
            say(f"another process is preparing these pictures; waiting for it ({root / key})")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _is_complete(folder: pathlib.Path) -> bool:
    """Whether the cache is there and its files have the sizes written down for them."""
    try:
        meta = read_meta(folder)
        return all((folder / name).stat().st_size == size for name, size in meta["bytes"].items())
    except (OSError, ValueError, KeyError):
        return False


def _remove_leftovers(root: pathlib.Path, key: str) -> None:
    """Removes what killed builds left: of this key (its lock is ours), and of abandoned ones."""
    shutil.rmtree(root / key, ignore_errors=True)
    for leftover in root.glob(f"*{_BUILDING}"):
        name = leftover.name.removesuffix(_BUILDING)
        if name == key:
            shutil.rmtree(leftover)
            continue
        lock = filelock.FileLock(root / f"{name}.lock")
        with contextlib.suppress(filelock.Timeout), lock.acquire(timeout=0):
            shutil.rmtree(leftover, ignore_errors=True)


def _build(config: DataConfig, source: Source, folder: pathlib.Path, shown: bool) -> None:
    contents = source.contents()
    _check_space(config, contents, folder.parent)
    building = folder.with_name(folder.name + _BUILDING)
    building.mkdir()
    try:
        set_aside = build(config, contents, building, shown)
        _write_json(report_file(building), set_aside)
        files = sorted(path for path in building.iterdir())
        meta = {
            "fingerprint": _fingerprint(config, source, contents, building),
            "bytes": {path.name: path.stat().st_size for path in files},
        }
        _write_json(building / _META, meta)
        _sync_directory(building)
        building.rename(folder)
        _sync_directory(folder.parent)
    except AllSetAside as error:
        report = folder.with_name(f"{folder.name}.{report_file(folder).name}")
        _write_json(report, error.reasons)
        raise UserError(f"{error} (all reasons: {report})") from error
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _fingerprint(
    config: DataConfig, source: Source, contents: Contents, folder: pathlib.Path
) -> dict:
    splits = {}
    for split in split_names(folder):
        images = np.load(folder / f"{split}.npy", mmap_mode="r")
        splits[split] = {"count": len(images), "sha256": npy.sha256(images)}
    return {
        "source": source.kind,
        "image_size": list(config.image_size),
        "channels": config.channels,
        "crop": crops.describe(config.crop),
        "splits": splits,
        "attribute_names": list(contents.attribute_names),
    }


def _check_space(config: DataConfig, contents: Contents, root: pathlib.Path) -> None:
    height, width = config.image_size
    pictures = contents.count * height * width * config.channels
    # Held-out pictures are for a moment there twice.
    held_out = sum(
        amount if amount < 1 else amount / max(contents.count, 1) for amount in config.holdout
    )
    needed = pictures * (1.01 + min(held_out, 1.0)) + (1 << 20)
    free = shutil.disk_usage(root).free
    if needed > free:
        raise UserError(
            f"config.data.cache_dir={str(root)!r} has {free / 1e9:.1f} GB free, but"
            f" {contents.count:,}"
            f" pictures need {needed / 1e9:.1f} GB: free space, or name a larger disk"
        )


def _write_json(path: pathlib.Path, value: dict) -> None:
    with open(path, "w", encoding="utf-8") as file:
        json.dump(value, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


def _sync_directory(folder: pathlib.Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
