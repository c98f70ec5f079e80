"""Random changes of training pictures: augmentation, and masks of the encoder's input."""

from collections.abc import Collection

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray, UInt8

from vaejax.models.noise import MASK, Keys, fold_in

# Side in pixels of a masked square, and the grey that it shows.
_MASKED, _GREY = 8, 128


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


def masked(
    images: UInt8[Array, "batch height width channel"], keys: Keys, share: float
) -> UInt8[Array, "batch height width channel"]:
    """Replaces squares of 8 x 8 pixels by grey, each with the probability `share`.

    Codes from which a decoder rebuilds what was masked are easier for a prior to learn (Lee et al.,
    "Latent diffusion models with masked autoencoders", ICCV 2025).

    Args:
      images: the pictures.
      keys: one key for each picture.
      share: the probability, in [0, 1].
    """
    height, width = images.shape[1:3]
    squares = (-(-height // _MASKED), -(-width // _MASKED))

    def hidden(key: PRNGKeyArray) -> Array:
        chosen = jax.random.bernoulli(key, share, squares)
        return jnp.repeat(jnp.repeat(chosen, _MASKED, axis=0), _MASKED, axis=1)

    mask = jax.vmap(hidden)(fold_in(keys, MASK))[:, :height, :width, None]
    return jnp.where(mask, jnp.uint8(_GREY), images)
