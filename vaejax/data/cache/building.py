"""Decodes a whole source into arrays on disk, in parallel and in order."""

import hashlib
import os
import pathlib
from collections import defaultdict, deque
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from vaejax.config import DataConfig
from vaejax.data.cache import npy
from vaejax.data.items import Chunk, Contents, Item
from vaejax.data.pictures.decoding import UnusablePicture, decode, quiet_pillow
from vaejax.data.reasons import count_reasons
from vaejax.data.sources.file_tree import UNREADABLE, Unreadable
from vaejax.data.splits import SPLITS, assign
from vaejax.errors import UserError, is_at_a_limit, short_reason
from vaejax.records.progress import counting

_PICTURES_PER_CHUNK = 64
_POOL = "pool"  # pictures whose split is assigned when all of them are known


class AllSetAside(UserError):
    """No picture of a source could be used.

    Attributes:
      reasons: name -> reason.
    """

    def __init__(self, message: str, reasons: dict[str, str]):
        super().__init__(message)
        self.reasons = reasons


class _Decoded(NamedTuple):
    split: str
    pixels: list[np.ndarray]
    names: list[str]
    labels: list[dict[str, Any]]
    digests: list[bytes]
    set_aside: dict[str, str]
    remarks: dict[str, str]


class _Columns:
    """Names, labels and digests of one split's pictures, in order."""

    def __init__(self):
        self.names: list[str] = []
        self.digests: list[bytes] = []
        self.labels: defaultdict[str, list] = defaultdict(list)

    def extend(self, decoded: _Decoded) -> None:
        self.names += decoded.names
        self.digests += decoded.digests
        for labels in decoded.labels:
            for key, value in labels.items():
                self.labels[key].append(value)

    def save(self, path: pathlib.Path, rows: np.ndarray, labels: Collection[str]) -> None:
        """Writes the names and some labels of some rows to an `.npz` file, and forces it to disk.

        Names are stored as values, because a file name may hold any characters.
        """
        labelled = {
            f"label:{key}": np.asarray(values)[rows]
            for key, values in self.labels.items()
            if key in labels
        }
        with open(path, "wb") as file:
            np.savez(file, names=np.asarray(self.names, dtype=np.str_)[rows], **labelled)
            file.flush()
            os.fsync(file.fileno())


def build(
    config: DataConfig, contents: Contents, folder: pathlib.Path, shown: bool
) -> tuple[dict[str, str], dict[str, str]]:
    """Writes `<split>.npy` and `<split>.npz` (names, labels) for every split with pictures.

    Args:
      config: the data's settings: what the pictures become, and how many threads decode them.
      contents: the source's pictures.
      folder: an empty directory.
      shown: whether to show progress.

    Returns:
      The pictures set aside (name -> reason), and what is odd about others (name -> remark).

    Raises:
      AllSetAside: there are pictures, but none can be used.
      UserError: there is nothing to train on: the source has no pictures, all that can be used
        belong to other official splits, or the holdout takes them all.
    """
    set_aside = dict(contents.set_aside)
    remarks: dict[str, str] = {}
    columns: dict[str, _Columns] = {}
    writers: dict[str, npy.NpyWriter] = {}
    step = min(_PICTURES_PER_CHUNK, npy.rows_per_chunk(config.shape))
    with (
        quiet_pillow(),
        counting("preparing", contents.count, shown) as advance,
        ExitStack() as files,
    ):
        for decoded in _decode_all(config, contents.chunks(step)):
            set_aside |= decoded.set_aside
            remarks |= decoded.remarks
            advance(len(decoded.names) + len(decoded.set_aside))
            if decoded.names:
                if decoded.split not in writers:
                    path = folder / f"{decoded.split}.npy"
                    writers[decoded.split] = files.enter_context(npy.NpyWriter(path, config.shape))
                    columns[decoded.split] = _Columns()
                writers[decoded.split].append(np.stack(decoded.pixels))
                columns[decoded.split].extend(decoded)
    if "train" not in columns and _POOL not in columns:
        raise _nothing_left(set_aside, list(columns))
    labels = _of_one_shape(columns.values())
    if _POOL in columns:
        names = assign(columns[_POOL].digests, config.holdout, config.split_seed)
        if "train" not in names:
            raise UserError(
                f"config.data.holdout={tuple(config.holdout)} leaves none of {len(names)} pictures "
                "to train on: hold out fewer"
            )
        npy.part(folder / f"{_POOL}.npy", names)
        parted = columns.pop(_POOL)
        for split in set(names):
            parted.save(folder / f"{split}.npz", np.flatnonzero(np.asarray(names) == split), labels)
    for split, kept in columns.items():
        kept.save(folder / f"{split}.npz", np.arange(len(kept.names)), labels)
    return set_aside, remarks


def _of_one_shape(columns: Iterable[_Columns]) -> set[str]:
    """Returns the labels whose values have one shape in all splits; no array can hold others."""
    shapes: defaultdict[str, set[tuple[int, ...]]] = defaultdict(set)
    for split in columns:
        for key, values in split.labels.items():
            shapes[key].update(map(np.shape, values))
    return {key for key, found in shapes.items() if len(found) == 1}


def _nothing_left(set_aside: dict[str, str], splits: list[str]) -> UserError:
    if splits:
        return UserError(
            f"no pictures to train on: all usable pictures belong to {', '.join(splits)}; add some "
            "to train"
        )
    if not set_aside:
        return UserError("the source has no pictures in train, valid or test: add some")
    return AllSetAside(
        f"all {len(set_aside):,} pictures had to be set aside ({count_reasons(set_aside)})",
        set_aside,
    )


def _decode_all(config: DataConfig, chunks: Iterator[Chunk]) -> Iterator[_Decoded]:
    """Decodes chunks in threads (Pillow releases the GIL) and yields them in order."""
    work = partial(
        _decode_chunk,
        partial(
            decode,
            image_size=config.image_size,
            channels=config.channels,
            crop=config.crop,
            max_pixels=config.max_pixels,
            refuse_drawn=True,
        ),
    )
    threads = config.decode_threads or available_cores()
    waiting: deque[Future[_Decoded]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
        try:
            for chunk in chunks:
                waiting.append(pool.submit(work, chunk))
                # A bounded queue: a fast reader must not fill memory with decoded pictures.
                if len(waiting) >= 2 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def available_cores() -> int:
    """Returns how many CPU cores this process may use; in many containers, not all of them."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _decode_chunk(decode_one, chunk: Chunk) -> _Decoded:
    decoded = _Decoded(chunk.split or _POOL, [], [], [], [], {}, {})
    for item in chunk.items():
        remarks: list[str] = []
        try:
            content = _read(item)
            pixels = decode_one(content, remark=remarks.append)
        except UnusablePicture as error:
            decoded.set_aside[item.name] = str(error)
            continue
        if remarks:
            # A second attempt to decode a picture repeats them.
            decoded.remarks[item.name] = "; ".join(dict.fromkeys(remarks))
        decoded.pixels.append(pixels)
        decoded.names.append(item.name)
        decoded.labels.append(dict(item.labels))
        if chunk.split is None:
            # NumPy's type stubs declare arrays as buffers only from Python 3.12 on.
            digest = hashlib.sha256(content)  # type: ignore[arg-type]
            decoded.digests.append(digest.digest())
    return decoded


def _read(item: Item) -> bytes | np.ndarray:
    try:
        content = item.read()
    except Exception as error:
        if is_at_a_limit(error):
            # The picture is sound: without it, the cache would stay wrong.
            raise UserError(
                f"{item.name} cannot be read now ({short_reason(error)}); lower "
                "config.data.decode_threads or raise the limit (ulimit -a shows them), and run the "
                "same command to go on"
            ) from error
        if isinstance(error, Unreadable):  # a bad disk, permissions, a damaged member of a zip
            raise UnusablePicture(str(error)) from error
        raise UnusablePicture(f"{UNREADABLE}{error or type(error).__name__}") from error
    return np.ascontiguousarray(content) if isinstance(content, np.ndarray) else content


def split_names(folder: pathlib.Path) -> list[str]:
    """Lists the splits that a build has written to `folder`, in the order of `SPLITS`."""
    return [split for split in SPLITS if (folder / f"{split}.npy").exists()]
