"""Random changes of a batch in training."""

from collections.abc import Collection

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray


def mirror(
    batch: dict[str, Array], key: PRNGKeyArray, sided: Collection[str] = ()
) -> dict[str, Array]:
    """Mirrors half of the pictures at random, and their labels with them.

    Args:
      batch: `image`, [batch, height, width, channel], and labels, [batch, ...].
      key: decides which.
      sided: the labels whose sign a mirror image turns, such as the degrees a head is turned.
    """

    def where(new: Array, old: Array) -> Array:
        return jnp.where(mirrored.reshape(-1, *[1] * (old.ndim - 1)), new, old)

    images = batch["image"]
    mirrored = jax.random.bernoulli(key, 0.5, images.shape[:1])
    labels = {name: where(-batch[name], batch[name]) for name in sided}
    return {**batch, **labels, "image": where(images[:, :, ::-1], images)}
