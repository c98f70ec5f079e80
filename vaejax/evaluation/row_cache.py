"""Keeps the rows that extractors compute of real pictures: `<cache_dir>/features/<key>.npy`."""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from jaxtyping import Float

from vaejax.data.cache.npy import NpyWriter
from vaejax.errors import short_reason
from vaejax.features import Extractor
from vaejax.files.atomic import replacing
from vaejax.records.progress import say

FOLDER = "features"
Rows = Float[np.ndarray, "picture feature"]


class RowCache:
    """A directory with one file of rows for each set of real pictures and extractor."""

    def __init__(self, root: Path):
        """Uses the directory `features` of the caches' `root`; creates nothing yet."""
        self._folder = root / FOLDER

    def rows(
        self, identity: str, extractor: Extractor, compute: Callable[[], Iterable[Rows]]
    ) -> Rows:
        """Returns the rows of a set, memory-mapped; computes and keeps them the first time.

        Args:
          identity: identifies the pictures: their fingerprint and the rows chosen.
          extractor: the extractor; a change of its name or protocol computes the rows anew.
          compute: yields the rows in batches.

        Where the directory cannot be written, the rows are computed and held in memory.
        """
        key = hashlib.sha256(f"{identity} {extractor.digest()}".encode()).hexdigest()[:24]
        path = self._folder / f"{key}.npy"
        try:
            return np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError):  # missing or damaged
            pass
        try:
            _write(path, compute)
            return np.load(path, mmap_mode="r", allow_pickle=False)
        except OSError as error:
            say(f"features of real pictures are not kept: {path} ({short_reason(error)})")
            return np.concatenate(list(compute()))


def _write(path: Path, compute: Callable[[], Iterable[Rows]]) -> None:
    batches = iter(compute())
    first = next(batches)
    with replacing(path) as temporary, NpyWriter(temporary, first.shape[1:], np.float32) as writer:
        writer.append(first)
        for rows in batches:
            writer.append(rows)
