"""The networks: picture shapes, sub-pixel shuffles, dtypes, and the gradients of parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from parameters import away_from_start, start
from tiny import tiny

from vaejax.likelihoods import build_likelihood
from vaejax.models import build_model
from vaejax.models.blocks import conv3x3, depth_to_space, space_to_depth


@settings(max_examples=20)
@given(
    block=st.integers(1, 4), rows=st.integers(1, 3), columns=st.integers(1, 3), c=st.integers(1, 3)
)
def test_sub_pixel_shuffles_are_inverse(block, rows, columns, c):
    x = np.arange(2 * rows * block * columns * block * c, dtype=np.float32)
    x = jnp.asarray(x.reshape(2, rows * block, columns * block, c))
    folded = jax.jit(space_to_depth, static_argnums=1)(x, block)
    assert folded.shape == (2, rows, columns, block * block * c)
    np.testing.assert_array_equal(jax.jit(depth_to_space, static_argnums=1)(folded, block), x)
    folded = np.asarray(folded)
    # The first position holds exactly the values of the first square.
    square = np.asarray(x)[0, :block, :block]
    np.testing.assert_array_equal(np.sort(folded[0, 0, 0]), np.sort(square.ravel()))


@settings(max_examples=10)
@given(rows=st.integers(1, 5), columns=st.integers(1, 5), channels=st.integers(1, 3))
def test_convolutions_have_the_gradients_that_jax_derives(rows, columns, channels):
    def derived(x, kernel):
        names = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=names)

    def with_gradients(function):
        @jax.jit
        def run(x, kernel, weights):
            value, gradients_of = jax.vjp(function, x, kernel)
            return value, gradients_of(weights)

        return run

    rng = np.random.default_rng(rows)
    shapes = (3, rows, columns, channels), (3, 3, channels, 2), (3, rows, columns, 2)
    inputs = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
    value, gradients = with_gradients(conv3x3)(*inputs)
    expected, derived_gradients = with_gradients(derived)(*inputs)
    np.testing.assert_array_equal(value, expected)
    for one, other in zip(gradients, derived_gradients):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def encoded_and_decoded(model, config, images):
    """Returns q(z|x), the parameters of p(x|z) at its mean, and log p(x|z), at initialisation.

    One compiled program computes all three, which saves time.
    """

    @jax.jit
    def run(params, images):
        codes = model.apply({"params": params}, images, method="encode")
        pixels = model.apply({"params": params}, codes[0], method="decode")
        return codes, pixels, build_likelihood(config).log_prob(images, pixels)

    return run(start(model, config), jnp.asarray(images))


@pytest.mark.parametrize(
    ("size", "channels", "patch", "scale"),
    [
        ((28, 20), 1, 2, "position"),
        ((64, 64), 3, 4, "predicted"),
        ((45, 31), 3, 2, "position"),
        ((45, 31), 3, 2, "predicted"),
        ((33, 70), 1, 4, "predicted"),
        ((128, 96), 3, 4, "position"),
    ],
)
def test_any_picture_shape(size, channels, patch, scale):
    config = tiny(
        data={"image_size": size, "channels": channels},
        model={"patch": patch},
        likelihood={"scale": scale},
    )
    model = build_model(config)
    images = np.random.default_rng(0).integers(0, 256, (2, *size, channels), np.uint8)
    (mean, log_std), pixels, log_prob = encoded_and_decoded(model, config, images)
    assert mean.shape == log_std.shape == (2, config.model.latent_size)
    assert pixels.location.shape == images.shape
    assert log_prob.shape == (2,) and np.all(np.isfinite(log_prob))


def test_bfloat16_stays_inside_the_networks():
    config = tiny(model={"dtype": "bfloat16"})
    model = build_model(config)
    assert {leaf.dtype for leaf in jax.tree.leaves(start(model, config))} == {jnp.dtype("float32")}
    images = np.zeros((2, 28, 28, 3), np.uint8)
    (mean, log_std), pixels, _ = encoded_and_decoded(model, config, images)
    assert mean.dtype == log_std.dtype == pixels.location.dtype == jnp.float32


@pytest.mark.parametrize(
    ("name", "prior"),
    [
        ("logistic", "standard_normal"),
        ("logistic", "coupling_flow"),
        ("gaussian", "coupling_flow"),
        ("bernoulli", "standard_normal"),
        ("mixture", "coupling_flow"),
    ],
)
def test_every_parameter_gets_a_gradient(name, prior):
    from vaejax.tasks.vae.evidence import evidence

    scale = {"scale": "shared"} if name in ("logistic", "gaussian") else {}
    config = tiny(likelihood={"name": name, **scale}, prior={"name": prior})
    model = build_model(config)
    # At initialisation some weights are zero, and the layers before them get no gradient.
    params = away_from_start(model, config, by=0.05)
    images = np.random.default_rng(0).integers(0, 256, (4, 28, 28, 3), np.uint8)
    keys = jax.random.split(jax.random.key(2), 4)

    def loss(params):
        terms = evidence(model, params, build_likelihood(config), jnp.asarray(images), keys)
        return -jnp.sum(terms.elbo())

    gradients = jax.jit(jax.grad(loss))(params)
    for path, gradient in jax.tree_util.tree_leaves_with_path(gradients):
        assert np.any(gradient != 0), jax.tree_util.keystr(path)
        assert np.all(np.isfinite(gradient)), jax.tree_util.keystr(path)
