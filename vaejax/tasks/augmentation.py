"""Random augmentation of training batches."""

from collections.abc import Collection

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray


def mirror(
    batch: dict[str, Array], key: PRNGKeyArray, sided: Collection[str] = ()
) -> dict[str, Array]:
    """Mirrors each picture left to right with probability 0.5, and its labels with it.

    Args:
      batch: `image`, [batch, height, width, channel], and labels, [batch, ...].
      key: key of the random choice.
      sided: names of the labels that change sign in a mirror image, such as a head's yaw.
    """

    def where(new: Array, old: Array) -> Array:
        return jnp.where(mirrored.reshape(-1, *[1] * (old.ndim - 1)), new, old)

    images = batch["image"]
    mirrored = jax.random.bernoulli(key, 0.5, images.shape[:1])
    labels = {name: where(-batch[name], batch[name]) for name in sided}
    return {**batch, **labels, "image": where(images[:, :, ::-1], images)}
