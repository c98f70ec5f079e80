"""Applies a compiled function to many inputs, batch by batch."""

from collections.abc import Callable, Iterable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree


def in_batches(function: Callable, *inputs: PyTree, size: int) -> Iterator[PyTree]:
    """Applies `function` to equally large, padded batches, so that it is compiled once.

    If there are fewer rows than `size`, the batch is the next power of two, so that few sizes are
    ever compiled.

    Args:
      function: maps arrays on the device to arrays with the same number of rows (first axis).
      *inputs: arrays, or trees of arrays, all with the same number of rows, at least one.
      size: largest number of rows of a batch.

    Yields:
      The outputs for each batch, on the host and without the padding.
    """
    count = len(jax.tree.leaves(inputs)[0])
    size = min(size, 1 << (count - 1).bit_length())
    for start in range(0, count, size):
        # The last batch is padded with the last row.
        rows = np.minimum(np.arange(start, start + size), count - 1)
        batch = jax.tree.map(lambda leaf, rows=rows: jnp.asarray(leaf[rows]), inputs)
        own = count - start
        yield jax.tree.map(lambda leaf, own=own: leaf[:own], jax.device_get(function(*batch)))


def joined(batches: Iterable[PyTree]) -> PyTree:
    """Concatenates batches, arrays or trees of arrays, along their first axis."""
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *batches)
