"""Random samples of pictures that are the same in every run."""

import numpy as np
from jaxtyping import Int64

from vaejax.data.feed.order import batch_indices

_SEED = 0


def random_rows(size: int, count: int) -> Int64[np.ndarray, "row"]:
    """Returns the rows of a fixed random sample of `count` of `size` pictures, in ascending order.

    All rows if `count` is 0 or more than `size`. The first rows would not be a random sample:
    folders are sorted by person or by source. A larger sample of the same pictures contains the
    smaller one.
    """
    if not 0 < count < size:
        return np.arange(size, dtype=np.int64)
    return np.sort(batch_indices(_SEED, np.arange(count, dtype=np.int64), size))


def random_order(size: int, count: int) -> Int64[np.ndarray, "row"]:
    """Returns the rows of `random_rows(size, count)` in random order, for their first ones too."""
    return batch_indices(_SEED, np.arange(min(count, size), dtype=np.int64), size)
