"""Batches of pictures, in an order that is a function of the seed and the position.

Training positions count pictures since the beginning: position p lies in epoch p // size and,
there, at place p % size of that epoch's permutation. Nothing has to be saved or replayed to go
on from any step, and any number of processes cut the same global batches.
"""

import atexit
import contextlib
import weakref
from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Int64, UInt8, UInt64

from vaejax.data.lazy_tensorflow import tensorflow

# Batches are read some at a time, because a call into TensorFlow and back takes longer than
# reading a small batch: as many as fit into these bytes, but at least one and not more than this.
_CHUNK_BYTES, _CHUNK_BATCHES = 8_000_000, 8
_PREFETCHED_CHUNKS = 2


def batch_indices(
    seed: int, positions: Int64[np.ndarray, "*shape"], size: int
) -> Int64[np.ndarray, "*shape"]:
    """Which pictures stand at `positions`.

    Every epoch is a permutation of its own; a batch may straddle epochs.

    Args:
      seed: of the order.
      positions: counted since the beginning; those of step s are s times the global batch size
        and what follows.
      size: pictures in the split.

    Raises:
      ValueError: there are no pictures.
    """
    if size < 1:
        raise ValueError(f"no order of {size} pictures")
    epochs, places = np.divmod(positions.ravel(), size)
    # `index_shuffle` cuts its cipher's keys straight from the seed's bits: with small numbers
    # for a seed it returns something close to the identity. Hashing cures that. The public
    # wrapper pads a matrix of seeds along the wrong axis (TF 2.21), hence the op itself.
    keys = [_mix(_mix(np.uint64(seed % 2**64)) ^ epochs.astype(np.uint64))]
    keys.append(_mix(keys[-1]))
    keys.append(_mix(keys[-1]))
    shuffled = tensorflow().raw_ops.RandomIndexShuffle(
        index=places, seed=np.stack(keys, axis=1), max_index=np.int64(size - 1), rounds=4
    )
    return shuffled.numpy().reshape(positions.shape)


def _mix(numbers: np.ndarray | np.uint64) -> UInt64[np.ndarray, "..."]:
    """SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): a bijective hash of 64 bits."""
    mixed = np.asarray(numbers, np.uint64) + np.array(0x9E3779B97F4A7C15, np.uint64)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.array(0xBF58476D1CE4E5B9, np.uint64)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.array(0x94D049BB133111EB, np.uint64)
    return np.asarray(mixed ^ (mixed >> np.uint64(31)))


def train_batches(
    images: UInt8[np.ndarray, "picture height width channel"],
    *,
    seed: int,
    batch_size: int,
    first_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    only_index: bool = False,
) -> Iterator[dict[str, np.ndarray]]:
    """Shuffled batches without end.

    Args:
      images: the split's pictures.
      seed: of the order.
      batch_size: of all processes together, a multiple of `process_count`.
      first_step: the step to go on from.
      process_index: this process takes its run of rows of every global batch.
      process_count: how many processes share a batch.
      only_index: leave out `image`: whoever reads the batches has the pictures already.

    Returns:
      An iterator over dicts: `image`, uint8 `[batch_size / process_count, height, width,
      channel]`, and `index`, int64, the pictures' rows in `images`. The arrays are read-only.

    Raises:
      ValueError: there are no pictures, or the batch does not divide.
    """
    rows = _local_rows(batch_size, process_index, process_count)
    size = len(images)
    if size < 1:
        raise ValueError("no pictures to train on")

    def load(steps: np.ndarray) -> tuple[np.ndarray, ...]:
        index = batch_indices(seed, steps[:, None] * batch_size + rows, size)
        return (index,) if only_index else (images[index], index)

    last_step = np.iinfo(np.int64).max // batch_size
    names = ("index",) if only_index else ("image", "index")
    return _prefetched(load, range(first_step, last_step), names, _chunk(images, rows))


def eval_batches(
    images: UInt8[np.ndarray, "picture height width channel"],
    *,
    batch_size: int,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[dict[str, np.ndarray]]:
    """Every picture once, in order, over all processes.

    Args:
      images: the split's pictures.
      batch_size: of all processes together, a multiple of `process_count`.
      process_index: this process takes its run of rows of every global batch.
      process_count: how many processes share a batch.

    Returns:
      An iterator over dicts: `image` and `index` as `train_batches` has them, and `mask`, bool:
      False in rows that only fill the last batch (they repeat the last picture). All processes
      see as many batches.

    Raises:
      ValueError: the batch does not divide.
    """
    rows = _local_rows(batch_size, process_index, process_count)
    size = len(images)

    def load(steps: np.ndarray) -> tuple[np.ndarray, ...]:
        positions = steps[:, None] * batch_size + rows
        index = np.minimum(positions, size - 1)
        return images[index], index, positions < size

    steps, names = range(-(-size // batch_size)), ("image", "index", "mask")
    return _prefetched(load, steps, names, _chunk(images, rows))


def _local_rows(
    batch_size: int, process_index: int, process_count: int
) -> Int64[np.ndarray, " row"]:
    if batch_size < 1 or batch_size % process_count:
        raise ValueError(f"a batch of {batch_size} cannot be shared by {process_count} processes")
    if not 0 <= process_index < process_count:
        raise ValueError(f"no process {process_index} among {process_count}")
    local = batch_size // process_count
    return np.arange(process_index * local, (process_index + 1) * local, dtype=np.int64)


def _chunk(images: np.ndarray, rows: np.ndarray) -> int:
    """How many batches are read at a time."""
    picture = int(np.prod(images.shape[1:])) * images.itemsize
    return min(max(1, _CHUNK_BYTES // (len(rows) * picture)), _CHUNK_BATCHES)


# Iterators that are still open. TensorFlow's threads call Python, and must have stopped before
# the interpreter goes.
_open_iterators: weakref.WeakSet = weakref.WeakSet()


@atexit.register
def _close_iterators() -> None:
    for iterator in list(_open_iterators):
        with contextlib.suppress(ValueError):  # another thread is just reading it
            iterator.close()


_TYPES = {"image": np.uint8, "index": np.int64, "mask": np.bool_}


def _prefetched(
    load: Callable[[np.ndarray], tuple[np.ndarray, ...]],
    steps: range,
    names: tuple[str, ...],
    chunk: int,
) -> Iterator[dict[str, np.ndarray]]:
    """The arrays `load` gives for each step, by name, `chunk` steps loaded ahead at a time."""
    iterator = _iterate(load, steps, names, chunk)
    _open_iterators.add(iterator)
    return iterator


def _iterate(load, steps: range, names, chunk: int) -> Iterator[dict[str, np.ndarray]]:
    tf = tensorflow()

    @tf.autograph.experimental.do_not_convert
    def batches(first):
        types = [_TYPES[name] for name in names]
        loaded = tf.numpy_function(
            lambda first: load(np.arange(first, min(first + chunk, steps.stop))),
            [first], types, stateful=False,
        )  # fmt: skip
        return dict(zip(names, loaded))

    options = tf.data.Options()
    options.autotune.enabled = False  # one stage: nothing to tune, and a thread the fewer
    options.threading.private_threadpool_size = 1
    chunks = tf.data.Dataset.range(steps.start, steps.stop, chunk).map(batches)
    chunks = chunks.prefetch(_PREFETCHED_CHUNKS).with_options(options)
    for arrays in chunks.as_numpy_iterator():
        for step in range(len(arrays[names[0]])):
            yield {name: array[step] for name, array in arrays.items()}
