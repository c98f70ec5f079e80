"""Many inputs through a compiled function, a few at a time."""

from collections.abc import Callable, Iterable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree


def in_batches(function: Callable, *inputs: PyTree, size: int) -> Iterator[PyTree]:
    """Applies `function` to equal, padded batches, so that it is compiled once.

    Fewer inputs than a batch fill the next power of two, for which little is compiled anew.

    Args:
      function: takes arrays on the device, with as many rows out as in.
      *inputs: arrays, or trees of them, all with as many rows.
      size: rows of a batch.

    Yields:
      What it returns for each batch, on the host and without the padding.
    """
    count = len(jax.tree.leaves(inputs)[0])
    size = min(size, 1 << (count - 1).bit_length())
    for start in range(0, count, size):
        # The last row fills the last batch.
        rows = np.minimum(np.arange(start, start + size), count - 1)
        batch = jax.tree.map(lambda leaf, rows=rows: jnp.asarray(leaf[rows]), inputs)
        own = count - start
        yield jax.tree.map(lambda leaf, own=own: leaf[:own], jax.device_get(function(*batch)))


def joined(batches: Iterable[PyTree]) -> PyTree:
    """The batches as one."""
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *batches)
