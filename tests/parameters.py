"""Parameters of a model for tests: newly initialised, or perturbed as if trained."""

import functools

import jax
import numpy as np
from flax import linen as nn

from vaejax.config import Config
from vaejax.models import init_params


def start(model: nn.Module, config: Config) -> dict:
    """Returns newly initialised parameters."""
    return jax.jit(functools.partial(init_params, model, config))(jax.random.key(0))


def away_from_start(model: nn.Module, config: Config, by: float = 0.1) -> dict:
    """Returns initial parameters plus Gaussian noise of standard deviation `by`.

    Layers that are initialised at or near zero then affect the output, so that errors in them show.
    """
    # NumPy's generator, because a JAX program with so many random draws takes long to compile.
    rng = np.random.default_rng(1)

    def moved(leaf: jax.Array) -> jax.Array:
        return leaf + by * rng.normal(size=leaf.shape).astype(np.float32)

    return jax.tree.map(moved, start(model, config))
