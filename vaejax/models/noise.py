"""Randomness with one key for each picture, so that its noise does not depend on its company."""

import functools
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PRNGKeyArray

# One key for each picture of a batch.
Keys = Key[Array, "batch"]
# Folded into a picture's key for the noise of its prior: it must not be that of its posterior.
# Greater than the number of any group.
PRIOR = 2**29


# Of one program where it is called on its own.
@functools.partial(jax.jit, inline=True)
def picture_keys(
    key: PRNGKeyArray, index: Int[Array, "batch"], sample: int | Int[Array, ""] = 0
) -> Keys:
    """The keys of the pictures with these numbers, for one of several samples of each."""
    return jax.vmap(lambda i: jax.random.fold_in(jax.random.fold_in(key, i), sample))(index)


def normal_in_a_row(key: PRNGKeyArray, shape: tuple[int, ...]) -> Float[Array, "*shape"]:
    """Standard normal numbers, the same as `jax.random.normal` gives.

    They are drawn as a vector: XLA's CPU compiler takes ten times as long for each place where a
    program draws random numbers of four axes.
    """
    return jax.random.normal(key, (math.prod(shape),), jnp.float32).reshape(shape)


def normal(keys: Keys, shape: tuple[int, ...]) -> Float[Array, "batch *shape"]:
    """Standard normal numbers, each picture's from its own key."""
    return jax.vmap(lambda key: normal_in_a_row(key, shape))(keys)


def fold_in(keys: Keys, purpose: int | Int[Array, ""]) -> Keys:
    """Each picture's key for one purpose."""
    return jax.vmap(lambda key: jax.random.fold_in(key, purpose))(keys)
