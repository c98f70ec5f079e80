"""Some pictures of many, chosen at random and always the same."""

import numpy as np
from jaxtyping import Int64, UInt8

from vaejax.data.pipeline import batch_indices

_SEED = 0


def random_rows(size: int, count: int) -> Int64[np.ndarray, "row"]:
    """The rows of a random sample, in ascending order; every row if `count` is `size` or more.

    The first rows would be no sample: folders are sorted by person or by source. A larger sample
    of the same pictures contains the smaller one.
    """
    places = np.arange(min(count, size), dtype=np.int64)
    return np.sort(batch_indices(_SEED, places, size)) if places.size else places


def subset(
    images: UInt8[np.ndarray, "picture height width channel"], count: int
) -> UInt8[np.ndarray, "some height width channel"]:
    """`count` of the pictures, by `random_rows`; all of them, unread, if `count` is 0."""
    return images[random_rows(len(images), count)] if 0 < count < len(images) else images
