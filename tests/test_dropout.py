"""Dropout of a ladder's channels, which is used only in training."""

import jax
import jax.numpy as jnp
import numpy as np
from ladders import pictures
from parameters import away_from_start
from tiny import tiny_ladder

from vaejax.models import build_model
from vaejax.models.ladder_blocks import Bottleneck
from vaejax.models.noise import picture_keys
from vaejax.runtime.mesh import single_device_mesh
from vaejax.tasks.vae import NET, vae_task
from vaejax.tasks.vae.evaluation import make_eval_step
from vaejax.training.state import Carry, starting
from vaejax.training.step import make_train_step


def test_dropout_is_for_training_alone():
    """Dropout changes the loss of an update, but not the program of the validation."""
    losses, programs = [], []
    for dropout in (0.0, 0.5):
        config = tiny_ladder(model={"dropout": dropout, "widths": (6,), "blocks": (1,)})
        model, mesh = build_model(config), single_device_mesh()
        params = away_from_start(model, config)
        task = vae_task(config)
        state, window = jax.jit(starting(task))(jax.random.key(0))
        carry = Carry(state.replace(nets={NET: state.nets[NET].replace(params=params)}), window)
        train_step = make_train_step(task, config.train, mesh)
        _, loss = train_step(carry, {"image": pictures(config, 8)[None]})
        losses.append(float(loss))
        everyone = jnp.arange(8), jnp.ones(8, bool)
        evaluate = make_eval_step(config, mesh)
        programs.append(evaluate.lower(params, pictures(config, 8), *everyone).as_text())
    assert abs(losses[0] - losses[1]) > 1e-3
    assert programs[0] == programs[1]


def test_what_is_not_dropped_weighs_more():
    """Whole channels are dropped; the others are scaled up, so that the mean stays the same."""
    x = jax.random.normal(jax.random.key(0), (2000, 2, 2, 6))
    block = Bottleneck(8, taps=1, dropout=0.25, dtype=jnp.dtype("float32"))
    params = block.init(jax.random.key(1), x)
    whole = block.apply(params, x)
    dropped = block.apply(params, x, picture_keys(jax.random.key(2), jnp.arange(2000)))
    kept = np.any(dropped != 0, axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(dropped, np.where(kept, whole / 0.75, 0.0), rtol=1e-6)
    np.testing.assert_allclose(np.mean(kept), 0.75, atol=0.02)
