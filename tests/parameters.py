"""Parameters of a model: fresh ones, and such as training might have made."""

import functools

import jax
import numpy as np
from flax import linen as nn

from vaejax.config import Config
from vaejax.models import init_params


def start(model: nn.Module, config: Config) -> dict:
    """Fresh parameters."""
    return jax.jit(functools.partial(init_params, model, config))(jax.random.key(0))


def away_from_start(model: nn.Module, config: Config, by: float = 0.1) -> dict:
    """Parameters at which all that starts at nothing, or small, shows."""
    rng = np.random.default_rng(1)  # NumPy's: a program of as many draws takes long to compile

    def moved(leaf: jax.Array) -> jax.Array:
        return leaf + by * rng.normal(size=leaf.shape).astype(np.float32)

    return jax.tree.map(moved, start(model, config))
