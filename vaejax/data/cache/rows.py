"""Rows of numbers computed of real pictures, such as features: `<cache_dir>/features/<key>.npy`."""

import contextlib
import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from jaxtyping import Float

from vaejax.data.cache.npy import NpyWriter
from vaejax.errors import short_reason
from vaejax.files.atomic import replacing
from vaejax.records.progress import say

FOLDER = "features"
Rows = Float[np.ndarray, "picture feature"]


class RowCache:
    """A directory with one file for each set of pictures and what is computed of them."""

    def __init__(self, root: Path):
        """Uses the directory `features` of the caches' `root`; creates nothing yet."""
        self._folder = root / FOLDER

    def rows(self, identity: str, compute: Callable[[], Iterable[Rows]]) -> Rows:
        """Returns rows, memory-mapped; computes and keeps them the first time.

        Where the directory cannot be written, the rows are computed and held in memory.

        Args:
          identity: identifies the pictures, and what is computed of them.
          compute: yields the rows in batches, at least one.
        """
        key = hashlib.sha256(identity.encode()).hexdigest()[:24]
        path = self._folder / f"{key}.npy"
        with contextlib.suppress(OSError, ValueError, EOFError):  # missing or damaged
            return _opened(path)
        try:
            _write(path, compute)
            return _opened(path)
        except OSError as error:
            say(f"features of real pictures are not kept: {path} ({short_reason(error)})")
            return np.concatenate(list(compute()))


def _opened(path: Path) -> Rows:
    rows = np.load(path, mmap_mode="r", allow_pickle=False)
    # The time of the last use, by which `prepare --prune` removes files.
    with contextlib.suppress(OSError):
        path.touch()
    return rows


def _write(path: Path, compute: Callable[[], Iterable[Rows]]) -> None:
    batches = iter(compute())
    first = next(batches)
    with replacing(path) as temporary, NpyWriter(temporary, first.shape[1:], np.float32) as writer:
        writer.append(first)
        for rows in batches:
            writer.append(rows)
