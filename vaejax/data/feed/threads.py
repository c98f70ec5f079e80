"""Arrays loaded ahead by a thread of Python, where TensorFlow is not installed."""

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
    """The arrays that `load` gives for each number, in order.

    Closing the iterator, dropping it, or an interpreter that ends, ends its thread.

    Args:
      load: called in one other thread; what it raises, `next` raises.
      types: types of the arrays, by name.
      numbers: to load.
      ahead: how many are loaded before they are asked for.

    Returns:
      An iterator over the arrays by name, read-only.
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
        # The reader itself may drop the iterator, as a collector of garbage, and cannot wait.
        with contextlib.suppress(RuntimeError):
            reader.shutdown(cancel_futures=True)
