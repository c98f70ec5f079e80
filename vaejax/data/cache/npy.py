"""Arrays on disk that are larger than memory: appending rows, dividing into splits, hashing."""

import hashlib
import os
import pathlib
from collections.abc import Sequence
from typing import IO

import numpy as np
import numpy.typing as npt

from vaejax.data.items import spans

_CHUNK_BYTES = 8 << 20


class NpyWriter:
    """Writes an `.npy` file row by row; its length need not be known before the end.

    A context manager: on exit it writes the length and forces the file to disk, unless an error
    was raised. Appending to a file keeps memory use constant: the pages of a memory map being
    filled would count as the process's own memory.

    Args:
      path: the file, which is overwritten.
      row_shape: shape of one row.
      dtype: dtype of the file.

    Attributes:
      count: number of rows appended so far.
    """

    def __init__(
        self, path: pathlib.Path, row_shape: tuple[int, ...], dtype: npt.DTypeLike = np.uint8
    ):
        self._file = open(path, "wb")  # noqa: SIM115 (closed by __exit__)
        self._row_shape, self._dtype = row_shape, np.dtype(dtype)
        self.count = 0
        _write_header(self._file, (0, *row_shape), self._dtype)

    def append(self, rows: np.ndarray) -> None:
        """Appends rows `[n, *row_shape]`, converted to the file's dtype."""
        self._file.write(np.ascontiguousarray(rows, self._dtype).data)
        self.count += len(rows)

    def __enter__(self) -> "NpyWriter":
        return self

    def __exit__(self, kind: object, *error: object) -> None:
        with self._file as file:
            if kind is None:
                _write_header(file, (self.count, *self._row_shape), self._dtype)
                file.flush()
                os.fsync(file.fileno())


def _write_header(file: IO[bytes], shape: tuple[int, ...], dtype: np.dtype) -> None:
    # NumPy pads headers so that the first axis can grow in place; NpyWriter and part rely on it.
    descr = np.lib.format.dtype_to_descr(dtype)
    header = {"descr": descr, "fortran_order": False, "shape": shape}
    file.seek(0)
    np.lib.format.write_array_header_1_0(file, header)
    if file.tell() != np.lib.format.MAGIC_LEN + 120:
        raise AssertionError(f"a .npy header of {file.tell()} bytes instead of 128")
    file.seek(0, os.SEEK_END)


def part(path: pathlib.Path, split_of_row: Sequence[str]) -> None:
    """Divides an `.npy` file by split: moves its rows to files beside it, named after the splits.

    The file itself becomes `train.npy`: its remaining rows are compacted in place, so the disk
    never holds the training pictures twice.

    Args:
      path: the file.
      split_of_row: the split of each row.
    """
    names = np.asarray(split_of_row)
    pool = np.load(path, mmap_mode="r+")
    row_shape, dtype = pool.shape[1:], pool.dtype
    step = rows_per_chunk(row_shape)
    for name in sorted(set(split_of_row) - {"train"}):
        rows = np.flatnonzero(names == name)
        with NpyWriter(path.with_name(f"{name}.npy"), row_shape, dtype) as writer:
            for span in spans(len(rows), step):
                writer.append(pool[rows[span.start : span.stop]])
    kept = np.flatnonzero(names == "train")
    if len(kept) < len(pool):
        for span in spans(len(kept), step):
            # Safe in place: indexing copies, and no row overwrites one that is still to be read.
            pool[span.start : span.stop] = pool[kept[span.start : span.stop]]
    pool.flush()
    offset = pool.offset
    del pool
    with open(path, "r+b") as file:
        _write_header(file, (len(kept), *row_shape), dtype)
        file.truncate(offset + len(kept) * int(np.prod(row_shape)) * dtype.itemsize)
        file.flush()
        os.fsync(file.fileno())
    path.rename(path.with_name("train.npy"))


def rows_per_chunk(row_shape: tuple[int, ...]) -> int:
    """Returns how many rows of one-byte values make up 8 MiB, but at least 1."""
    return max(1, _CHUNK_BYTES // int(np.prod(row_shape)))


def sha256(array: np.ndarray) -> str:
    """Computes the SHA-256 (hexadecimal) of an array's values in C order, read in pieces."""
    digest = hashlib.sha256()
    for span in spans(len(array), rows_per_chunk(array.shape[1:])):
        digest.update(np.ascontiguousarray(array[span.start : span.stop]).data)
    return digest.hexdigest()


def label_sha256(array: np.ndarray) -> str:
    """Computes the SHA-256 of a label's shape and values, independently of its dtype's width."""
    kind = array.dtype.kind
    if kind == "U":
        values = "\0".join(array.flat).encode("utf-8", "surrogatepass")
    elif kind in "biuf":
        kind = "f" if kind == "f" else "i"
        large = array.dtype == np.uint64 and array.size and array.max() >= 1 << 63
        values = array.astype("<f8" if kind == "f" else "<u8" if large else "<i8").tobytes()
    else:
        values = array.tobytes()
    return hashlib.sha256(f"{kind} {array.shape}:".encode() + values).hexdigest()
