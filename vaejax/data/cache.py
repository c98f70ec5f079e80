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
from vaejax.data.formats import readers
from vaejax.data.listing import CACHE_TAG, CACHE_TAG_CONTENT
from vaejax.data.records import Contents, Source
from vaejax.errors import UserError
from vaejax.progress import say
from vaejax.replacing import replacing

_LAYOUT = 2  # of the directory and of the way pictures are made; a change rebuilds all caches
_META = "meta.json"
_REPORT = "set_aside.json"
_BUILDING = ".building"
SETTING = "config.data.cache_dir"
"""What a user changes to have the cache elsewhere."""
_UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)


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


def open_or_build(
    config: DataConfig, source: Source, shown: bool, setting: str = SETTING
) -> pathlib.Path:
    """The directory of the finished cache, built now if it is not there.

    A finished cache is used wherever it lies, also where nothing can be written or locked.

    Args:
      config: the data's settings.
      source: the opened source.
      shown: whether to show progress and messages.
      setting: what the user can change to have the cache elsewhere, for messages.

    Raises:
      UserError: the disk is too small or not writable, or no picture is usable.
    """
    root = cache_root(config)
    key = cache_key(config, source)
    folder = root / key
    if _is_complete(folder):
        return folder
    with _usable(root, setting):
        root.mkdir(parents=True, exist_ok=True)
    with _locked(root, key, shown, setting):
        # Whoever held the lock may just have finished.
        if not _is_complete(folder):
            with _usable(root, setting):
                _remove_leftovers(root, key)
                _build(config, source, folder, shown, setting)
    return folder


@contextlib.contextmanager
def _usable(root: pathlib.Path, setting: str) -> Iterator[None]:
    """Tells a disk that is full or cannot be written from errors of anything else."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                f"{setting}={str(root)!r} ran full: free space, or name a larger disk"
            ) from error
        within = error.filename is not None and root.is_relative_to(
            pathlib.Path(os.fsdecode(error.filename))
        )
        if within or error.errno in _UNWRITABLE:
            raise UserError(
                f"{setting}={str(root)!r} cannot be written ({error.strerror}): set {setting} to a"
                " directory that can"
            ) from error
        raise


def read_meta(folder: pathlib.Path) -> dict:
    """What the build wrote down: `fingerprint`, and `set_aside` (name -> reason)."""
    return json.loads((folder / _META).read_text(encoding="utf-8"))


def write_report(folder: pathlib.Path, reasons: dict[str, str]) -> pathlib.Path:
    """Writes down what was not used (name -> reason), unless the cache cannot be written."""
    path = folder / _REPORT
    content = json.dumps(reasons, indent=1)
    with contextlib.suppress(OSError):
        if not path.exists() or path.read_text(encoding="utf-8") != content:
            with replacing(path) as temporary:
                temporary.write_text(content, encoding="utf-8")
    return path


@contextlib.contextmanager
def _locked(root: pathlib.Path, key: str, shown: bool, setting: str) -> Iterator[None]:
    lock = filelock.FileLock(root / f"{key}.lock")
    try:
        with _usable(root, setting):
            try:
                lock.acquire(timeout=0)
            except filelock.Timeout:
                if shown:
                    say(f"another process is preparing these pictures; waiting ({root / key})")
                lock.acquire()
    except (NotImplementedError, OSError) as error:
        # No lock file instead: that of a process that was killed would have to be waited for.
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"{setting}={str(root)!r} lies on a file system without locks ({reason}): set"
            f" {setting} to a directory on a local disk"
        ) from error
    try:
        yield
    finally:
        lock.release()


def _is_complete(folder: pathlib.Path) -> bool:
    """Whether the cache is there and its files have the sizes written down for them."""
    try:
        meta = read_meta(folder)
        return all((folder / name).stat().st_size == size for name, size in meta["bytes"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def load_split(
    folder: pathlib.Path, split: str
) -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]:
    """Maps a split's pictures, and loads its labels and the pictures' names; all read-only."""
    images = np.load(folder / f"{split}.npy", mmap_mode="r")
    with np.load(folder / f"{split}.npz", allow_pickle=False) as columns:
        arrays = {key: columns[key] for key in columns.files}
    for array in arrays.values():
        array.flags.writeable = False
    names = arrays.pop("names")
    return images, {key.removeprefix("label:"): array for key, array in arrays.items()}, names


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


def _build(
    config: DataConfig, source: Source, folder: pathlib.Path, shown: bool, setting: str
) -> None:
    contents = source.contents()
    _check_space(config, contents, folder.parent, setting)
    building = folder.with_name(folder.name + _BUILDING)
    building.mkdir()
    try:
        # So that nobody takes for data, or backs up, what can be made again.
        (building / CACHE_TAG).write_text(CACHE_TAG_CONTENT)
        set_aside = build(config, contents, building, shown)
        files = sorted(building.iterdir())
        meta = {
            "fingerprint": _fingerprint(config, source, contents, building),
            "set_aside": set_aside,
            "bytes": {path.name: path.stat().st_size for path in files},
        }
        _write_json(building / _META, meta)
        _sync_directory(building)
        building.rename(folder)
        _sync_directory(folder.parent)
    except AllSetAside as error:
        report = folder.with_name(f"{folder.name}.{_REPORT}")
        _write_json(report, {**source.left_out, **error.reasons})
        raise UserError(f"{error} (all reasons: {report})") from error
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _fingerprint(
    config: DataConfig, source: Source, contents: Contents, folder: pathlib.Path
) -> dict:
    splits, hashed = {}, {}
    for split in split_names(folder):
        images, labels, _ = load_split(folder, split)
        splits[split] = {"count": len(images), "sha256": npy.sha256(images)}
        hashed[split] = {name: npy.labels_sha256(labels[name]) for name in sorted(labels)}
    return {
        "source": source.kind,
        "image_size": list(config.image_size),
        "channels": config.channels,
        "crop": crops.describe(config.crop),
        "splits": splits,
        "labels": hashed,
        "attribute_names": list(contents.attribute_names),
    }


def _check_space(config: DataConfig, contents: Contents, root: pathlib.Path, setting: str) -> None:
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
            f"{setting}={str(root)!r} has {free / 1e9:.1f} GB free, but {contents.count:,}"
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
