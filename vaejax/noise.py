"""Randomness with one key for each picture, so that its noise does not depend on its company."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PRNGKeyArray

# One key for each picture of a batch.
Keys = Key[Array, "batch"]


def picture_keys(
    key: PRNGKeyArray, index: Int[Array, "batch"], sample: int | Int[Array, ""] = 0
) -> Keys:
    """The keys of the pictures with these numbers, for one of several samples of each."""
    return jax.vmap(lambda i: jax.random.fold_in(jax.random.fold_in(key, i), sample))(index)


def normal(keys: Keys, shape: tuple[int, ...]) -> Float[Array, "batch *shape"]:
    """Standard normal numbers, each picture's from its own key."""
    return jax.vmap(lambda key: jax.random.normal(key, shape, jnp.float32))(keys)


def fold_in(keys: Keys, purpose: int | Int[Array, ""]) -> Keys:
    """Each picture's key for one purpose."""
    return jax.vmap(lambda key: jax.random.fold_in(key, purpose))(keys)
