"""Sets of pictures that an evaluation compares, streamed in batches so that memory stays flat."""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Int64, UInt8

Batch = UInt8[np.ndarray | jax.Array, "batch height width channel"]

# Names of the sets. Real pictures: those compared with; others, as many as there are samples, whose
# figures are the floors; and the training pictures among which copies are searched.
REAL, FLOOR, TRAIN_ALL = "real", "other_real_pictures", "all_train_pictures"
REAL_SETS = (REAL, FLOOR, TRAIN_ALL)
# Pictures of the model.
SAMPLES, RECONSTRUCTIONS = "samples", "reconstructions"
# Decoded midpoints between codes and their nearest neighbours, and between random pairs of noise.
MIDPOINTS, INTERPOLATIONS = "neighbour_midpoints", "interpolations"
# Decoded codes of training pictures show what a perfect prior would reach.
DECODED = "decoded_train_codes"


class PictureSet(NamedTuple):
    """Pictures that come in batches.

    Attributes:
      count: number of the pictures.
      batches: returns a new iterator over them; batches may have any sizes, and what they hold
        beyond `count` pictures altogether is padding.
      identity: a text that identifies real pictures, under which their statistics are cached; None
        if they must not be cached.
    """

    # It hides the method `tuple.count`, which nobody calls.
    count: int  # type: ignore[assignment]
    batches: Callable[[], Iterator[Batch]]
    identity: str | None = None


def rows_of(
    pictures: UInt8[np.ndarray, "picture height width channel"],
    rows: Int64[np.ndarray, "row"] | None = None,
    *,
    batch_size: int = 100,
    identity: str | None = None,
) -> PictureSet:
    """Returns the set of some rows of an array, which may be a memory-mapped file.

    Args:
      pictures: the array.
      rows: the rows wanted, in the order wanted; None for all.
      batch_size: pictures in a batch.
      identity: as in `PictureSet`.
    """
    chosen = np.arange(len(pictures)) if rows is None else rows

    def batches() -> Iterator[Batch]:
        for start in range(0, len(chosen), batch_size):
            yield np.asarray(pictures[chosen[start : start + batch_size]])

    return PictureSet(len(chosen), batches, identity)


def first(pictures: Iterable[Batch], count: int) -> Iterator[np.ndarray]:
    """Yields the first `count` pictures of some batches, on the host."""
    for batch in pictures:
        taken = np.asarray(batch[:count])
        yield taken
        count -= len(taken)
        if count <= 0:
            return
