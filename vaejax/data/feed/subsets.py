"""Some pictures of many, chosen at random and always the same."""

import numpy as np
from jaxtyping import Int64

from vaejax.data.feed.order import batch_indices

_SEED = 0


def random_rows(size: int, count: int) -> Int64[np.ndarray, "row"]:
    """The rows of a random sample of `count` of `size` pictures, in ascending order.

    All rows if `count` is 0, or more than there are. The first rows would be no sample: folders are
    sorted by person or by source. A larger sample of the same pictures contains the smaller one.
    """
    if not 0 < count < size:
        return np.arange(size, dtype=np.int64)
    return np.sort(batch_indices(_SEED, np.arange(count, dtype=np.int64), size))
