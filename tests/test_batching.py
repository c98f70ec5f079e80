"""Tests `in_batches` and `joined`, which apply a function batch by batch."""

import jax
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vaejax.trained.batching import in_batches, joined


@given(count=st.integers(1, 40), size=st.integers(1, 9))
def test_outputs_keep_their_order_and_all_batches_have_one_size(count, size):
    sizes = set()

    def function(tree: dict[str, jax.Array], more: jax.Array) -> dict[str, jax.Array]:
        sizes.add(len(more))
        return {"sum": tree["x"][:, 0] + more}

    x = np.arange(2 * count, dtype=np.float32).reshape(count, 2)
    outputs = list(in_batches(function, {"x": x}, np.ones(count, np.float32), size=size))
    np.testing.assert_array_equal(joined(outputs)["sum"], x[:, 0] + 1)
    assert len(sizes) == 1 and sizes.pop() <= size
