"""Batches of examples, in an order that is a function of the seed and the position.

A batch is a dict of arrays whose first axis is the example: `image`, labels by name, `index`.

Training positions count pictures since the beginning: position p lies in epoch p // size and,
there, at place p % size of that epoch's permutation. Nothing has to be saved or replayed to go
on from any step, and any number of processes cut the same global batches.
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

# Batches are read some at a time, because a call into TensorFlow and back takes longer than
# reading a small batch: as many as fit into these bytes, but at least one and not more than this.
_CHUNK_BYTES, _CHUNK_BATCHES = 8_000_000, 8
_PREFETCHED_CHUNKS = 2

Arrays = Mapping[str, Shaped[np.ndarray, "example ..."]]
"""The examples of a split: arrays by name, with a row for each example."""
Feed = Callable[..., Generator[dict[str, np.ndarray], None, None]]
"""`loaded_ahead` of one of the two modules that have it."""


def feeds() -> dict[str, Feed]:
    """Who can load batches ahead on this machine, by name, the one that does it first."""
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
    """Shuffled batches without end.

    Args:
      arrays: the split's examples.
      seed: seed of the order.
      batch_size: batch size of all processes together, a multiple of `process_count`.
      first_step: the step to go on from.
      process_index: this process takes its run of rows of every global batch.
      process_count: how many processes share a batch.
      only_index: leave out `arrays`: whoever reads the batches has them already.
      feed: another than the first of `feeds()`, to compare them. All give the same batches.

    Returns:
      An iterator over dicts: rows of each of `arrays`, `[batch_size / process_count, ...]`, and
      `index`, int64, which rows they are. The arrays are read-only.

    Raises:
      ValueError: there are no examples, or the batch does not divide.
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
    """Every example once, in order, over all processes.

    Args:
      arrays: the split's examples.
      chosen: the rows of those that are wanted; None for all.
      batch_size: batch size of all processes together, a multiple of `process_count`.
      process_index: this process takes its run of rows of every global batch.
      process_count: how many processes share a batch.
      feed: as `train_batches` has it.

    Returns:
      An iterator over dicts: `arrays` and `index` as `train_batches` has them, and `mask`, bool:
      False in rows that only fill the last batch (they repeat the last example). All processes
      see as many batches.

    Raises:
      ValueError: the batch does not divide.
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
    """How many batches are read at a time."""
    example = sum(math.prod(array.shape[1:]) * array.itemsize for array in arrays.values())
    return min(max(1, _CHUNK_BYTES // (len(rows) * example)), _CHUNK_BATCHES)


# Iterators that are still open. TensorFlow's threads call Python, and must have stopped before
# the interpreter goes.
_open_iterators: weakref.WeakSet = weakref.WeakSet()


@atexit.register
def _close_iterators() -> None:
    for iterator in list(_open_iterators):
        with contextlib.suppress(ValueError):  # another thread is just reading it
            iterator.close()


def _prefetched(
    load: Callable[[np.ndarray], tuple[np.ndarray, ...]],
    steps: range,
    types: Mapping[str, type[np.generic]],
    chunk: int,
    feed: Feed | None,
) -> Iterator[dict[str, np.ndarray]]:
    """The arrays `load` gives for each step, by name, `chunk` steps loaded ahead at a time."""
    iterator = _iterate(load, steps, types, chunk, feed)
    _open_iterators.add(iterator)
    return iterator


def _iterate(load, steps: range, types, chunk: int, feed) -> Iterator[dict[str, np.ndarray]]:
    def load_chunk(first: int) -> tuple[np.ndarray, ...]:
        return load(np.arange(first, min(first + chunk, steps.stop)))

    loaded_ahead = feed or next(iter(feeds().values()))  # imports TensorFlow: not before it must
    firsts = range(steps.start, steps.stop, chunk)
    with contextlib.closing(loaded_ahead(load_chunk, types, firsts, _PREFETCHED_CHUNKS)) as chunks:
        for arrays in chunks:
            for step in range(len(arrays["index"])):
                yield {name: array[step] for name, array in arrays.items()}
