"""Losses of adversarial training, and the discriminator, against closed forms."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vaejax.models.discriminator import Discriminator
from vaejax.objectives.adversarial import discriminator_loss, generator_loss, gradient_penalty

LOGITS = st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=6)
SIZES = [(28, 20), (32, 32), (17, 16)]


@settings(max_examples=30)
@given(LOGITS, LOGITS)
def test_the_losses_are_cross_entropies(real, fake):
    probability = [[1 / (1 + math.exp(-logit)) for logit in some] for some in (real, fake)]
    tiny = 1e-30
    right = -np.mean(np.log(np.maximum(probability[0], tiny)))
    wrong = -np.mean(np.log(np.maximum([1 / (1 + math.exp(logit)) for logit in fake], tiny)))
    fooled = -np.mean(np.log(np.maximum(probability[1], tiny)))
    arrays = jnp.asarray(real, jnp.float32), jnp.asarray(fake, jnp.float32)
    assert float(discriminator_loss(*arrays)) == pytest.approx(right + wrong, rel=1e-4, abs=1e-5)
    assert float(generator_loss(arrays[1])) == pytest.approx(fooled, rel=1e-4, abs=1e-5)


def test_pictures_that_cannot_be_told_apart_have_no_better_logit_than_zero():
    def loss(logit):
        return discriminator_loss(logit[None], logit[None])

    assert float(loss(jnp.float32(0.0))) == pytest.approx(2 * math.log(2))
    assert float(jax.grad(loss)(jnp.float32(0.0))) == pytest.approx(0.0, abs=1e-7)
    assert float(loss(jnp.float32(0.3))) > 2 * math.log(2)


def test_the_penalty_of_a_linear_and_of_a_quadratic_function():
    weights = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)), jnp.float32)
    pictures = jnp.asarray(np.random.default_rng(1).normal(size=(5, 4, 3)), jnp.float32)

    def linear(pictures):
        return jnp.sum(pictures * weights[None], axis=(1, 2))

    half = 0.5 * float(jnp.sum(weights**2))
    assert float(gradient_penalty(linear, pictures)) == pytest.approx(half, rel=1e-5)
    # The slope of |x|² / 2 is x.
    found = gradient_penalty(lambda x: 0.5 * jnp.sum(x**2, axis=(1, 2)), pictures)
    expected = 0.5 * float(jnp.mean(jnp.sum(pictures**2, axis=(1, 2))))
    assert float(found) == pytest.approx(expected, rel=1e-5)


@functools.cache
def judged(size):
    """Returns pictures of a size, parameters, and the network as a function of pictures."""
    network = Discriminator((4, 6, 8), jnp.dtype("float32"))
    pictures = jax.random.normal(jax.random.key(0), (3, *size, 3))
    params = network.init(jax.random.key(1), pictures)["params"]
    return pictures, params, jax.jit(lambda params, some: network.apply({"params": params}, some))


@pytest.mark.parametrize("size", SIZES)
def test_a_discriminator_judges_patches_and_whole_pictures(size):
    pictures, params, judge = judged(size)
    found = judge(params, pictures)
    assert found.patches.shape == (3, *(math.ceil(side / 4) for side in size))
    assert found.whole.shape == (3,) and len(found.features) == 3
    expected = (found.patches.mean((1, 2)) + found.whole) / 2
    np.testing.assert_allclose(found.logits(), expected, rtol=1e-6)


def test_each_picture_is_judged_alone():
    pictures, params, judge = judged(SIZES[0])
    alone, together = judge(params, pictures[1:2]), judge(params, pictures)
    np.testing.assert_allclose(alone.logits()[0], together.logits()[1], rtol=1e-5)


def test_the_penalty_has_a_gradient_through_the_convolutions():
    """Their gradients are written by hand; the gradient of the penalty differentiates them."""
    pictures, params, judge = judged(SIZES[0])

    def penalty(params):
        return gradient_penalty(lambda some: judge(params, some).logits(), pictures)

    def moved(by):
        return jax.tree.map(lambda leaf, slope: leaf + by * slope, params, slopes)

    slopes = jax.grad(penalty)(params)
    # Along its own gradient, where the change is largest.
    norm = math.sqrt(sum(float(jnp.sum(leaf**2)) for leaf in jax.tree.leaves(slopes)))
    step = 1e-2 / norm
    change = float(penalty(moved(step)) - penalty(moved(-step)))
    assert change / (2 * step) == pytest.approx(norm**2, rel=0.02)
