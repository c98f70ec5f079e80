"""Helpers for the tests of ladders: pictures, random keys and jitted methods."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from vaejax.config import Config
from vaejax.models import Ladder
from vaejax.models.noise import picture_keys

COUNT = 3


@functools.partial(jax.jit, static_argnums=(0, 2))
def apply(model: Ladder, params: dict, method: str, *inputs: PyTree) -> PyTree:
    """Calls a method of the model under jit, because its operations one by one take minutes."""
    return model.apply({"params": params}, *inputs, method=method)


def pictures(config: Config, count: int = COUNT) -> jax.Array:
    shape = (count, *config.data.shape)
    return jnp.asarray(np.random.default_rng(0).integers(0, 256, shape, np.uint8))


def keys_of(count: int = COUNT, sample: int = 0) -> jax.Array:
    return picture_keys(jax.random.key(7), jnp.arange(count), sample)
