"""Tests of the optimizer: AdamW and Adamax as in Optax, skipped updates, gradient scaling."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vaejax.config import OptimizerConfig
from vaejax.training.optimizer import (
    gradient_norm_ema,
    gradient_scale,
    learning_rate,
    no_moments,
    update,
)

SETTINGS = OptimizerConfig(weight_decay=0.1, clip_norm=2.0, ema_decay=0.9)
RATE = 0.01


@pytest.fixture
def params():
    keys = jax.random.split(jax.random.key(0), 2)
    return {
        "layer": {
            "kernel": jax.random.normal(keys[0], (5, 3)),
            "bias": jax.random.normal(keys[1], (3,)),
        }
    }


def gradients_at(step: int, like: dict) -> dict:
    """Returns random gradients, whose norm is below `clip_norm` at step 0 and above it later."""
    keys = iter(jax.random.split(jax.random.key(step), 10))
    return jax.tree.map(lambda x: (step + 1) * 0.3 * jax.random.normal(next(keys), x.shape), like)


def step_once(params, moments, average, gradients, count, apply=True, settings=SETTINGS):
    norm = optax.tree.norm(gradients)
    return update(
        settings, params, moments, average, gradients,
        scale=gradient_scale(settings, norm, jnp.float32(0.0)),
        count=jnp.int32(count), rate=jnp.float32(RATE), apply=jnp.asarray(apply),
    )  # fmt: skip


def test_the_learning_rate_rises_linearly_and_falls_as_a_cosine():
    settings = OptimizerConfig(learning_rate=0.5, final_fraction=0.1, warmup_steps=4)
    for step, share in ((0, 0.25), (1, 0.5), (3, 1.0), (4, 1.0), (14, 0.55), (24, 0.1), (30, 0.1)):
        rate = learning_rate(settings, 24, jnp.int32(step))
        np.testing.assert_allclose(rate, 0.5 * share, rtol=1e-6)


@pytest.mark.parametrize("name", ["adamw", "adamax"])
def test_updates_are_those_of_optax(params, name):
    settings = dataclasses.replace(SETTINGS, name=name)
    scaled = {
        "adamw": optax.scale_by_adam(settings.b1, settings.b2),
        "adamax": optax.scale_by_adamax(settings.b1, settings.b2),
    }
    mask = {"layer": {"kernel": True, "bias": False}}
    reference = optax.chain(
        optax.clip_by_global_norm(settings.clip_norm),
        scaled[name],
        optax.add_decayed_weights(settings.weight_decay, mask),
        optax.scale(-RATE),
    )
    ours, moments, average = params, no_moments(params), params
    theirs, state = params, reference.init(params)
    for i in range(6):
        gradients = gradients_at(i, params)
        ours, moments, average = step_once(ours, moments, average, gradients, i, settings=settings)
        with jax.numpy_dtype_promotion("standard"):
            changes, state = reference.update(gradients, state, theirs)
        theirs = optax.apply_updates(theirs, changes)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-6), ours, theirs)


@pytest.mark.parametrize(("count", "decay"), [(0, 0.1), (8, 0.5), (10_000, 0.9)])
def test_the_average_of_the_parameters_is_exponential_and_forgets_faster_at_first(
    params, count, decay
):
    old = jax.tree.map(lambda leaf: leaf + 1.0, params)
    moved, _, average = step_once(params, no_moments(params), old, params, count)
    expected = jax.tree.map(lambda old, new: decay * old + (1.0 - decay) * new, old, moved)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), average, expected)


def test_a_skipped_update_changes_nothing(params):
    before = step_once(params, no_moments(params), params, gradients_at(0, params), 0)
    poison = jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), params)
    after = step_once(*before, poison, 1, apply=False)
    jax.tree.map(np.testing.assert_array_equal, after, before)


def test_the_guard_scales_outliers_down_and_adapts_to_large_gradients():
    settings = OptimizerConfig(clip_norm=1e9, guard=4.0)
    average_norm = jnp.float32(0.0)
    for _ in range(20):
        average_norm = gradient_norm_ema(settings, jnp.float32(1.0), average_norm)
    np.testing.assert_allclose(average_norm, 1.0, rtol=1e-5)
    for norm in (4.5, 40.0, 1e6):
        left = norm * gradient_scale(settings, jnp.float32(norm), average_norm)
        np.testing.assert_allclose(left, 4.0**2 / norm, rtol=1e-4)
    after = gradient_norm_ema(settings, jnp.float32(1e6), average_norm)
    assert 1.0 < after < 1.1, "one outlier changes the mean only a little"
    for _ in range(600):
        average_norm = gradient_norm_ema(settings, jnp.float32(1e4), average_norm)
    assert gradient_scale(settings, jnp.float32(1e4), average_norm) == 1.0, (
        "gradients that stay large must pass unscaled"
    )


def test_clip_norm_limits_the_norm_and_a_zero_gradient_stays_zero():
    settings = OptimizerConfig(clip_norm=2.0, guard=0.0)
    for norm, left in ((0.0, 0.0), (1.0, 1.0), (2.0, 2.0), (50.0, 2.0)):
        factor = gradient_scale(settings, jnp.float32(norm), jnp.float32(0.0))
        np.testing.assert_allclose(norm * factor, left, rtol=1e-6)


def test_clip_norm_limits_what_the_guard_leaves():
    settings = OptimizerConfig(clip_norm=2.0, guard=4.0)
    average_norm = jnp.float32(1.0)
    for norm, left in ((1.0, 1.0), (3.0, 2.0), (5.0, 2.0), (16.0, 1.0), (1600.0, 0.01)):
        factor = gradient_scale(settings, jnp.float32(norm), average_norm)
        np.testing.assert_allclose(norm * factor, left, rtol=1e-6)
    assert gradient_norm_ema(settings, jnp.float32(0.0), average_norm) == average_norm
