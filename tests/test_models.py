"""The networks: picture shapes, sub-pixel shuffles, dtypes, and the gradients of parameters."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxprs import dtypes_of_products
from parameters import away_from_start
from tiny import tiny

from vaejax.likelihoods import build_likelihood
from vaejax.models import build_model, init_params
from vaejax.models.blocks import conv3x3, depth_to_space, space_to_depth
from vaejax.tasks.vae.evidence import evidence


@pytest.mark.parametrize(("block", "rows", "columns", "channels"), [(2, 3, 1, 3), (3, 1, 2, 1)])
def test_sub_pixel_shuffles_are_inverse(block, rows, columns, channels):
    x = np.random.default_rng(0).normal(size=(2, rows * block, columns * block, channels))
    x = x.astype(np.float32)
    folded = jax.jit(space_to_depth, static_argnums=1)(x, block)
    # Each position holds the values of its square, row by row.
    expected = [
        [
            x[:, block * i : block * (i + 1), block * j : block * (j + 1)].reshape(2, -1)
            for j in range(columns)
        ]
        for i in range(rows)
    ]
    np.testing.assert_array_equal(folded, np.moveaxis(expected, 2, 0))
    np.testing.assert_array_equal(jax.jit(depth_to_space, static_argnums=1)(folded, block), x)


@pytest.mark.parametrize(("rows", "columns", "channels"), [(1, 4, 1), (5, 3, 2)])
def test_convolutions_have_the_gradients_that_jax_derives(rows, columns, channels):
    def derived(x, kernel):
        names = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=names)

    @jax.jit
    def values_and_gradients(x, kernel, weights):
        def of(function):
            value, gradients_of = jax.vjp(function, x, kernel)
            return value, *gradients_of(weights)

        return of(conv3x3), of(derived)

    rng = np.random.default_rng(rows)
    shapes = (3, rows, columns, channels), (3, 3, channels, 2), (3, rows, columns, 2)
    inputs = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
    for actual, expected in zip(*values_and_gradients(*inputs)):
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


def encoded_and_decoded(model, config, params, images):
    """Returns q(z|x), the parameters of p(x|z) at its mean, and log p(x|z)."""
    codes = model.apply({"params": params}, images, method="encode")
    pixels = model.apply({"params": params}, codes[0], method="decode")
    return codes, pixels, build_likelihood(config).log_prob(images, pixels)


@pytest.mark.parametrize(
    ("size", "channels", "patch", "scale"),
    [((45, 31), 3, 2, "position"), ((33, 70), 1, 4, "predicted")],
)
def test_any_picture_shape(size, channels, patch, scale):
    config = tiny(
        data={"image_size": size, "channels": channels},
        model={"patch": patch},
        likelihood={"scale": scale},
    )
    model = build_model(config)
    images = np.random.default_rng(0).integers(0, 256, (2, *size, channels), np.uint8)
    run = jax.jit(functools.partial(encoded_and_decoded, model, config))
    (mean, log_std), pixels, log_prob = run(away_from_start(model, config), images)
    assert mean.shape == log_std.shape == (2, config.model.latent_size)
    assert pixels.location.shape == images.shape
    assert log_prob.shape == (2,) and np.all(np.isfinite(log_prob))


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("name", ["conv", "spatial"])
def test_the_networks_compute_in_the_dtype_of_the_config(name, dtype):
    """Parameters, posteriors and the parameters of p(x|z) are float32 in any case."""
    config = tiny(name, model={"dtype": dtype})
    model = build_model(config)
    params = jax.eval_shape(functools.partial(init_params, model, config), jax.random.key(0))
    images = jax.ShapeDtypeStruct((2, 28, 28, 3), jnp.uint8)
    run = functools.partial(encoded_and_decoded, model, config)
    results = jax.eval_shape(run, params, images)
    assert {leaf.dtype.name for leaf in jax.tree.leaves((params, results))} == {"float32"}
    products = dtypes_of_products(run, params, images)
    assert set(products) == {dtype} and products[dtype] > 7


@pytest.mark.parametrize(
    ("name", "prior"), [("logistic", "standard_normal"), ("mixture", "coupling_flow")]
)
def test_every_parameter_gets_a_gradient(name, prior):
    scale = {"scale": "shared"} if name == "logistic" else {}
    config = tiny(likelihood={"name": name, **scale}, prior={"name": prior})
    model = build_model(config)
    params = away_from_start(model, config, by=0.05)
    images = np.random.default_rng(0).integers(0, 256, (4, 28, 28, 3), np.uint8)
    keys = jax.random.split(jax.random.key(2), 4)

    def loss(params):
        terms = evidence(model, params, build_likelihood(config), jnp.asarray(images), keys)
        return -jnp.sum(terms.elbo())

    gradients = jax.device_get(jax.jit(jax.grad(loss))(params))
    for path, gradient in jax.tree_util.tree_leaves_with_path(gradients):
        assert np.any(gradient != 0), jax.tree_util.keystr(path)
        assert np.all(np.isfinite(gradient)), jax.tree_util.keystr(path)
