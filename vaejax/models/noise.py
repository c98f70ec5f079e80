"""Random numbers with one key for each picture, so that its noise does not depend on its batch."""

import functools
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PRNGKeyArray

# One key for each picture of a batch.
Keys = Key[Array, "batch"]
# Folded into a picture's key for the noise of the prior, which must differ from that of the
# posterior. It is greater than the number of any group, which is folded in for the posterior.
PRIOR = 2**29


# Jitted, so that a call outside of another program compiles one program and not one per operation.
@functools.partial(jax.jit, inline=True)
def picture_keys(
    key: PRNGKeyArray, index: Int[Array, "batch"], sample: int | Int[Array, ""] = 0
) -> Keys:
    """Derives one key for each picture from its index.

    Args:
      key: root key.
      index: number of each picture, such as its row in the split.
      sample: number of the sample, where several are drawn for each picture.
    """
    return jax.vmap(lambda i: jax.random.fold_in(jax.random.fold_in(key, i), sample))(index)


def normal_in_a_row(key: PRNGKeyArray, shape: tuple[int, ...]) -> Float[Array, "*shape"]:
    """Draws standard normal numbers, the same as `jax.random.normal` does.

    They are drawn as a vector and reshaped: XLA's CPU compiler takes ten times as long for each
    place where a program draws random numbers of four axes.
    """
    return jax.random.normal(key, (math.prod(shape),), jnp.float32).reshape(shape)


def normal(keys: Keys, shape: tuple[int, ...]) -> Float[Array, "batch *shape"]:
    """Draws standard normal float32 numbers of `shape` for each picture, from its own key."""
    return jax.vmap(lambda key: normal_in_a_row(key, shape))(keys)


def fold_in(keys: Keys, purpose: int | Int[Array, ""]) -> Keys:
    """Folds a number into each key, so that each purpose has random numbers of its own."""
    return jax.vmap(lambda key: jax.random.fold_in(key, purpose))(keys)
