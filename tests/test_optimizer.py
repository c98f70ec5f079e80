"""AdamW is Optax's, and a skipped update leaves no trace."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vaejax.config import OptimizerConfig
from vaejax.optimizer import no_moments, update

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
    """Some below the clipping norm, some above."""
    keys = iter(jax.random.split(jax.random.key(step), 10))
    return jax.tree.map(lambda x: (step + 1) * 0.3 * jax.random.normal(next(keys), x.shape), like)


def step_once(params, moments, average, gradients, count, apply=True):
    return update(
        SETTINGS, params, moments, average, gradients, norm=optax.tree.norm(gradients),
        count=jnp.int32(count), rate=jnp.float32(RATE), apply=jnp.asarray(apply),
    )  # fmt: skip


def test_it_is_optax_adamw(params):
    reference = optax.chain(
        optax.clip_by_global_norm(SETTINGS.clip_norm),
        optax.adamw(
            RATE, SETTINGS.b1, SETTINGS.b2, weight_decay=SETTINGS.weight_decay,
            mask={"layer": {"kernel": True, "bias": False}},
        ),
    )  # fmt: skip
    ours, moments, average = params, no_moments(params), params
    theirs, state = params, reference.init(params)
    for i in range(6):
        gradients = gradients_at(i, params)
        ours, moments, average = step_once(ours, moments, average, gradients, i)
        with jax.numpy_dtype_promotion("standard"):
            changes, state = reference.update(gradients, state, theirs)
        theirs = optax.apply_updates(theirs, changes)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-6), ours, theirs)


def test_the_average_follows(params):
    _, _, average = step_once(params, no_moments(params), params, params, 10_000)
    moved, _, _ = step_once(params, no_moments(params), params, params, 10_000)
    expected = jax.tree.map(lambda old, new: 0.9 * old + 0.1 * new, params, moved)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), average, expected)


def test_a_skipped_update_leaves_no_trace(params):
    before = step_once(params, no_moments(params), params, gradients_at(0, params), 0)
    poison = jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), params)
    after = step_once(*before, poison, 1, apply=False)
    jax.tree.map(np.testing.assert_array_equal, after, before)
