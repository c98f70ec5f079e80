"""Parameters of a model for tests: newly initialised, or random as if trained."""

import functools
import math

import jax
import numpy as np
from flax import linen as nn

from vaejax.config import Config
from vaejax.models import init_params


def start(model: nn.Module, config: Config) -> dict:
    """Returns newly initialised parameters."""
    return jax.jit(functools.partial(init_params, model, config))(jax.random.key(0))


def away_from_start(model: nn.Module, config: Config, by: float = 0.1) -> dict:
    """Returns random parameters, with which every layer affects the output.

    Initially some layers are at or near zero, so that errors in them would not show. Kernels keep
    the size of their input; the other parameters have the standard deviation `by`.
    """
    # Only shapes come from the model, and NumPy draws the numbers: a JAX program that initialises
    # so many parameters takes long to compile.
    shapes = jax.eval_shape(functools.partial(init_params, model, config), jax.random.key(0))
    rng = np.random.default_rng(1)

    def drawn(path: tuple, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        is_kernel = path[-1].key == "kernel"
        spread = 1 / math.sqrt(math.prod(leaf.shape[:-1])) if is_kernel else by
        return jax.device_put(np.float32(spread) * rng.normal(size=leaf.shape).astype(np.float32))

    return jax.tree_util.tree_map_with_path(drawn, shapes)
