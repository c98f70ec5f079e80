"""The transformer of flow matching: patches, rotary positions, and its start at zero."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vaejax.priors.velocity_transformer import (
    VelocityTransformer,
    rotary_angles,
    rotated,
    to_map,
    to_tokens,
)

SMALL = {"width": 16, "blocks": 2, "head_size": 8}


def network_and_params(shape, patch, dtype="float32", share=0.5):
    """Returns a small network and random parameters, which are nowhere zero."""
    network = VelocityTransformer(shape, patch, **SMALL, dtype=dtype)
    inputs = jnp.zeros((1, int(np.prod(shape)))), jnp.zeros(1)
    like = jax.eval_shape(network.init, jax.random.key(0), *inputs)["params"]
    random = np.random.default_rng(0)
    return network, jax.tree.map(
        lambda leaf: jnp.asarray(share * random.normal(size=leaf.shape), jnp.float32), like
    )


@pytest.mark.parametrize(
    ("patch", "rows", "columns", "channels"), [(1, 2, 3, 2), (2, 1, 3, 1), (2, 3, 2, 3)]
)
def test_a_token_is_a_square_of_the_map(patch, rows, columns, channels):
    shape = (rows * patch, columns * patch, channels)
    maps = np.arange(2 * np.prod(shape), dtype=np.float32).reshape(2, *shape)
    tokens = np.asarray(to_tokens(jnp.asarray(maps), patch))
    row, column = rows - 1, columns // 2
    square = maps[1, row * patch : (row + 1) * patch, column * patch : (column + 1) * patch]
    np.testing.assert_array_equal(tokens[1, row * columns + column], square.ravel())
    np.testing.assert_array_equal(to_map(jnp.asarray(tokens), shape, patch), maps)


def test_attention_sees_positions_only_by_their_difference():
    rows, columns, size = 5, 7, 12
    random = np.random.default_rng(1)
    query, key = (random.normal(size=size).astype(np.float32) for _ in range(2))

    def at_each_position(vector):
        heads = jnp.broadcast_to(jnp.asarray(vector), (1, rows * columns, 1, size))
        found = rotated(heads, rotary_angles(rows, columns, size))
        return np.asarray(found)[0, :, 0].reshape(rows, columns, size)

    queries, keys = at_each_position(query), at_each_position(key)
    products = np.einsum("rcd,std->rcst", queries, keys)
    np.testing.assert_allclose(products[2, 3, 3, 1], products[0, 6, 1, 4], rtol=1e-4)
    np.testing.assert_allclose(
        products[:-1, :-2, :-1, :-2], products[1:, 2:, 1:, 2:], rtol=1e-4, atol=1e-4
    )
    # But it does see them, along both axes.
    assert abs(products[0, 0, 1, 0] - products[0, 0, 0, 1]) > 0.1
    assert abs(products[0, 0, 1, 0] - products[0, 0, 0, 0]) > 0.1
    np.testing.assert_allclose(np.linalg.norm(queries, axis=-1), np.linalg.norm(query), rtol=1e-5)


@pytest.mark.parametrize("patch", [1, 2])
def test_the_output_is_zero_before_training(patch):
    network = VelocityTransformer((4, 2, 3), patch, **SMALL)
    x, time = jax.random.normal(jax.random.key(1), (3, 24)), jnp.asarray([0.0, 0.4, 1.0])
    params = jax.jit(network.init)(jax.random.key(0), x, time)
    np.testing.assert_array_equal(jax.jit(network.apply)(params, x, time), np.zeros((3, 24)))


def test_each_map_has_a_velocity_of_its_own_that_depends_on_all_positions_and_the_time():
    network, params = network_and_params((4, 4, 2), 2)
    apply = jax.jit(lambda x, time: network.apply({"params": params}, x, time))
    x, time = jax.random.normal(jax.random.key(1), (3, 32)), jnp.asarray([0.2, 0.5, 0.8])
    out = np.asarray(apply(x, time))
    # The first value is changed of the second map alone.
    changed = np.asarray(apply(x.at[1, 0].add(1.0), time))
    np.testing.assert_allclose(changed[[0, 2]], out[[0, 2]], rtol=1e-5, atol=1e-6)
    assert np.all(changed[1] != out[1])
    later = np.asarray(apply(x, time + 0.1))
    assert np.all(later != out)


def test_bfloat16_products_give_about_the_same_in_float32():
    network, params = network_and_params((4, 4, 2), 1, share=0.1)
    other, _ = network_and_params((4, 4, 2), 1, dtype="bfloat16")
    inputs = jax.random.normal(jax.random.key(1), (3, 32)), jnp.asarray([0.2, 0.5, 0.8])
    exact, rounded = (
        np.asarray(jax.jit(one.apply)({"params": params}, *inputs)) for one in (network, other)
    )
    assert rounded.dtype == np.float32 and np.any(rounded != exact)
    np.testing.assert_allclose(rounded, exact, atol=0.03 * np.abs(exact).max())


def test_recomputing_a_block_changes_neither_parameters_nor_gradients():
    plain, params = network_and_params((4, 4, 2), 1, share=0.1)
    again = dataclasses.replace(plain, remat=True)
    inputs = jax.random.normal(jax.random.key(1), (3, 32)), jnp.asarray([0.2, 0.5, 0.8])

    def gradient(network):
        loss = lambda params: jnp.sum(network.apply({"params": params}, *inputs) ** 2)  # noqa: E731
        return jax.jit(jax.grad(loss))(params)

    assert jax.tree.structure(jax.eval_shape(again.init, jax.random.key(0), *inputs)["params"]) == (
        jax.tree.structure(params)
    )
    # Attention has no parameters: it is computed again, and so has more products.
    counts = [
        str(jax.make_jaxpr(lambda n=network: gradient(n))()).count("dot_general")
        for network in (plain, again)
    ]
    assert counts[1] > counts[0]
    for one, other in zip(*map(jax.tree.leaves, map(gradient, (plain, again))), strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-4 * np.abs(one).max())
