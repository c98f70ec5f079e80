"""Loads arrays ahead of use with a Python thread, where TensorFlow is not installed."""

import contextlib
from collections import deque
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import numpy as np
from jaxtyping import Shaped


def loaded_ahead(
    load: Callable[[int], tuple[Shaped[np.ndarray, "..."], ...]],
    types: Mapping[str, type[np.generic]],
    numbers: range,
    ahead: int,
) -> Generator[dict[str, Shaped[np.ndarray, "..."]], None, None]:
    """Iterates over the arrays that `load` returns for each number, in order.

    The thread ends when the iterator is closed or dropped, or the interpreter exits.

    Args:
      load: called with a number, in one other thread; `next` raises what it raises.
      types: dtypes of the arrays that `load` returns, by name, in their order.
      numbers: the numbers to load.
      ahead: how many numbers are loaded before they are asked for.

    Returns:
      An iterator over dicts of arrays by name, read-only.
    """
    reader = ThreadPoolExecutor(1, "vaejax-feed")
    waiting = iter(numbers)
    try:
        coming = deque(reader.submit(load, number) for number in islice(waiting, ahead))
        while coming:
            arrays = dict(zip(types, coming.popleft().result()))
            coming.extend(reader.submit(load, number) for number in islice(waiting, 1))
            for array in arrays.values():
                array.flags.writeable = False
            yield arrays
    finally:
        # Garbage collection may close the iterator in the reader's own thread, which cannot wait
        # for itself.
        with contextlib.suppress(RuntimeError):
            reader.shutdown(cancel_futures=True)
