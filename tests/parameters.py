"""Parameters of a model: fresh ones, and such as training might have made."""

import functools

import jax
from flax import linen as nn

from vaejax.config import Config
from vaejax.models import init_params


def start(model: nn.Module, config: Config) -> dict:
    """Fresh parameters."""
    return jax.jit(functools.partial(init_params, model, config))(jax.random.key(0))


def away_from_start(model: nn.Module, config: Config, by: float = 0.1) -> dict:
    """Parameters at which all that starts at nothing, or small, shows."""
    leaves, tree = jax.tree.flatten(start(model, config))
    keys = jax.random.split(jax.random.key(1), len(leaves))
    return tree.unflatten([x + by * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys)])
