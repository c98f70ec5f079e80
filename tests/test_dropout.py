"""Dropout of a ladder's channels, which is used only in training."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from ladders import pictures
from parameters import away_from_start
from tiny import tiny_ladder

from vaejax.models.ladder_blocks import Bottleneck
from vaejax.models.noise import picture_keys
from vaejax.runtime.mesh import single_device_mesh
from vaejax.tasks.vae import NET, vae_task
from vaejax.tasks.vae.evaluation import make_eval_step


def test_dropout_is_used_only_in_training():
    """Dropout changes the loss of an update, but not the program of the validation."""
    losses, programs = [], []
    for dropout in (0.0, 0.5):
        config = tiny_ladder(model={"dropout": dropout, "widths": (6,), "blocks": (1,)})
        images, task = pictures(config, 8), vae_task(config)
        params = away_from_start(task.model, config)
        loss = jax.jit(functools.partial(task.loss, NET))
        keys = jax.random.split(jax.random.key(0), 8)
        losses.append(loss({NET: params}, {"image": images}, keys, jnp.int32(0))[0])
        evaluate = make_eval_step(config, single_device_mesh())
        rows = jnp.arange(8), jnp.ones(8, bool)
        programs.append(evaluate.lower(params, params, images, *rows).as_text())
    assert abs(losses[0] - losses[1]) > 1e-4
    assert programs[0] == programs[1]


def test_channels_that_are_kept_are_scaled_up():
    """Whole channels are dropped; the others are scaled up, so that the mean stays the same."""
    x = jax.random.normal(jax.random.key(0), (2000, 2, 2, 6))
    block = Bottleneck(8, taps=1, dropout=0.25, dtype=jnp.dtype("float32"))
    params = block.init(jax.random.key(1), x)
    without = block.apply(params, x)
    dropped = block.apply(params, x, picture_keys(jax.random.key(2), jnp.arange(2000)))
    kept = np.any(dropped != 0, axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(dropped, np.where(kept, without / 0.75, 0.0), rtol=1e-6)
    np.testing.assert_allclose(np.mean(kept), 0.75, atol=0.02)
