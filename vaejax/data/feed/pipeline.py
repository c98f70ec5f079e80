"""Batches of examples, in an order that is a function of the seed and the position.

A batch is a dict of arrays whose first axis is the example: `image`, labels by name, `index`.

Training positions count pictures since the beginning: position p is place p % size in the
permutation of epoch p // size. Nothing has to be saved or replayed to resume from any step, and
any number of processes cut the same global batches.
"""

import atexit
import contextlib
import math
import weakref
from collections.abc import Callable, Generator, Iterator, Mapping

import numpy as np
from jaxtyping import Int64, Shaped

from vaejax.data.feed import tf_data, threads
from vaejax.data.feed.order import batch_indices
from vaejax.data.lazy_tensorflow import tensorflow

# Several batches are read at a time, because a call into TensorFlow and back takes longer than
# reading a small batch: as many as fit into _CHUNK_BYTES, from 1 to _CHUNK_BATCHES.
_CHUNK_BYTES, _CHUNK_BATCHES = 8_000_000, 8
_PREFETCHED_CHUNKS = 2

Arrays = Mapping[str, Shaped[np.ndarray, "example ..."]]
"""The examples of a split: arrays by name, one row per example."""
Feed = Callable[..., Generator[dict[str, np.ndarray], None, None]]
"""A function that loads batches ahead of use: `loaded_ahead` of `tf_data` or `threads`."""


def feeds() -> dict[str, Feed]:
    """Returns the feeds that this machine has, by name, the default first.

    Imports TensorFlow if it is installed.
    """
    ours = {"threads": threads.loaded_ahead}
    return {"tf.data": tf_data.loaded_ahead, **ours} if tensorflow() else ours


def train_batches(
    arrays: Arrays,
    *,
    seed: int,
    batch_size: int,
    first_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    only_index: bool = False,
    feed: Feed | None = None,
) -> Iterator[dict[str, np.ndarray]]:
    """Iterates over shuffled batches without end.

    Args:
      arrays: the split's examples.
      seed: seed of the order.
      batch_size: global batch size, over all processes; a multiple of `process_count`.
      first_step: the step to resume from: the number of batches before the first.
      process_index: selects the contiguous rows of every global batch that this process gets.
      process_count: number of processes that share a batch.
      only_index: whether to leave out `arrays`, for a caller that already holds them.
      feed: replaces the first of `feeds()`, to compare them; all give the same batches.

    Returns:
      An iterator over dicts: rows of each of `arrays`, `[batch_size / process_count, ...]`, and
      `index`, int64, the numbers of these rows. The arrays are read-only.

    Raises:
      ValueError: there are no examples, `batch_size` is not a positive multiple of
        `process_count`, or there is no process `process_index`.
    """
    rows = _local_rows(batch_size, process_index, process_count)
    size = _size(arrays)
    if size < 1:
        raise ValueError("no examples to train on")

    def load(steps: np.ndarray) -> tuple[np.ndarray, ...]:
        index = batch_indices(seed, steps[:, None] * batch_size + rows, size)
        return (index,) if only_index else (*(array[index] for array in arrays.values()), index)

    last_step = np.iinfo(np.int64).max // batch_size
    types = {**({} if only_index else _types(arrays)), "index": np.int64}
    return _prefetched(load, range(first_step, last_step), types, _chunk(arrays, rows), feed)


def eval_batches(
    arrays: Arrays,
    *,
    batch_size: int,
    chosen: Int64[np.ndarray, "chosen"] | None = None,
    process_index: int = 0,
    process_count: int = 1,
    feed: Feed | None = None,
) -> Iterator[dict[str, np.ndarray]]:
    """Iterates over every example once, in order, shared among all processes.

    Args:
      arrays: the split's examples.
      batch_size: global batch size, over all processes; a multiple of `process_count`.
      chosen: row numbers of the examples wanted, in the order wanted; None for all.
      process_index: selects the contiguous rows of every global batch that this process gets.
      process_count: number of processes that share a batch.
      feed: as in `train_batches`.

    Returns:
      An iterator over dicts: `arrays` and `index` as in `train_batches`, and `mask`, bool: False
      in rows that only pad the last batch (they repeat the last example). All processes get the
      same number of batches.

    Raises:
      ValueError: `batch_size` is not a positive multiple of `process_count`, or there is no
        process `process_index`.
    """
    rows = _local_rows(batch_size, process_index, process_count)
    chosen = np.arange(_size(arrays)) if chosen is None else chosen
    size = len(chosen)

    def load(steps: np.ndarray) -> tuple[np.ndarray, ...]:
        positions = steps[:, None] * batch_size + rows
        index = chosen[np.minimum(positions, size - 1)]
        return *(array[index] for array in arrays.values()), index, positions < size

    types = {**_types(arrays), "index": np.int64, "mask": np.bool_}
    return _prefetched(load, range(-(-size // batch_size)), types, _chunk(arrays, rows), feed)


def _size(arrays: Arrays) -> int:
    return len(next(iter(arrays.values())))


def _types(arrays: Arrays) -> dict[str, type[np.generic]]:
    return {name: array.dtype.type for name, array in arrays.items()}


def _local_rows(
    batch_size: int, process_index: int, process_count: int
) -> Int64[np.ndarray, " row"]:
    if batch_size < 1 or batch_size % process_count:
        raise ValueError(f"a batch of {batch_size} cannot be shared by {process_count} processes")
    if not 0 <= process_index < process_count:
        raise ValueError(f"no process {process_index} among {process_count}")
    local = batch_size // process_count
    return np.arange(process_index * local, (process_index + 1) * local, dtype=np.int64)


def _chunk(arrays: Arrays, rows: np.ndarray) -> int:
    """Returns how many batches are read at a time."""
    example = sum(math.prod(array.shape[1:]) * array.itemsize for array in arrays.values())
    return min(max(1, _CHUNK_BYTES // (len(rows) * example)), _CHUNK_BATCHES)


# Iterators that are still open. TensorFlow's threads call Python, and must have stopped before
# the interpreter exits.
_open_iterators: weakref.WeakSet = weakref.WeakSet()


@atexit.register
def _close_iterators() -> None:
    for iterator in list(_open_iterators):
        with contextlib.suppress(ValueError):  # another thread is executing it
            iterator.close()


def _prefetched(
    load: Callable[[np.ndarray], tuple[np.ndarray, ...]],
    steps: range,
    types: Mapping[str, type[np.generic]],
    chunk: int,
    feed: Feed | None,
) -> Iterator[dict[str, np.ndarray]]:
    """Iterates over the arrays of each step, by name; loads `chunk` steps at a time in advance."""
    iterator = _iterate(load, steps, types, chunk, feed)
    _open_iterators.add(iterator)
    return iterator


def _iterate(load, steps: range, types, chunk: int, feed) -> Iterator[dict[str, np.ndarray]]:
    def load_chunk(first: int) -> tuple[np.ndarray, ...]:
        return load(np.arange(first, min(first + chunk, steps.stop)))

    loaded_ahead = feed or next(iter(feeds().values()))  # imports TensorFlow: as late as possible
    firsts = range(steps.start, steps.stop, chunk)
    with contextlib.closing(loaded_ahead(load_chunk, types, firsts, _PREFETCHED_CHUNKS)) as chunks:
        for arrays in chunks:
            for step in range(len(arrays["index"])):
                yield {name: array[step] for name, array in arrays.items()}
