"""Evaluation and trained models compute in float32 with the highest matmul precision."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ladders import pictures
from tiny import tiny, tiny_ladder

from vaejax.runtime.mesh import single_device_mesh
from vaejax.tasks.vae import NET, vae_task
from vaejax.tasks.vae.evaluation import make_eval_step
from vaejax.trained.model import TrainedModel
from vaejax.training.state import shapes

CONFIGS = [tiny, functools.partial(tiny, "spatial"), tiny_ladder]


@pytest.mark.parametrize("config_of", CONFIGS)
def test_evaluation_has_the_highest_precision_whatever_the_training_has(config_of):
    config = config_of(model={"dtype": "bfloat16", "widths": (4, 6), "blocks": (1, 1)})
    params = shapes(vae_task(config)).state.nets[NET].average
    step = make_eval_step(config, single_device_mesh(), importance_samples=2)
    arrays = pictures(config, 4), jnp.arange(4), jnp.ones(4, bool)
    check_precise(step.lower(params, params, *arrays), products=10)


@pytest.mark.parametrize("config_of", CONFIGS)
def test_a_trained_model_has_the_highest_precision_whatever_the_training_has(
    config_of, monkeypatch
):
    config = config_of(model={"dtype": "bfloat16", "widths": (4, 6), "blocks": (1, 1)})
    like = shapes(vae_task(config)).state.nets[NET].average
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), like)
    lowered = []

    def jit(function):
        """Returns a function that records its program, and returns zeros without compiling it."""

        def watched(*inputs):
            lowered.append(jax.jit(function).lower(*inputs))
            return jax.tree.map(
                lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), lowered[-1].out_info
            )

        return watched

    for module in ("model", "sampler"):
        monkeypatch.setattr(f"vaejax.trained.{module}.jit", jit)
    model = TrainedModel(config, params, 1, pathlib.Path(), {}, 0)
    model.sample(2)
    model.decode(model.encode(np.asarray(pictures(config, 2)))[0])
    model.log_likelihood(np.asarray(pictures(config, 2)), samples=2)
    assert len(lowered) >= 4
    for program in lowered:
        check_precise(program, products=3)


def check_precise(lowered, products):
    """Asserts that a lowered program computes in full float32 precision.

    It must have more than `products` matrix products and convolutions, all of them with precision
    HIGHEST for both operands, and no bfloat16 arrays.
    """
    lines = lowered.as_text().splitlines()
    found = [line for line in lines if "dot_general" in line or "convolution" in line]
    assert len(found) > products
    assert not [line for line in found if line.count("HIGHEST") != 2]
    assert not [line for line in lines if "bf16" in line]
