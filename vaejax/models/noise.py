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
# Folded into it for what training adds: noise of the decoder's input (and the number after it), and
# the mask of the encoder's input.
LATENT_NOISE, MASK = 2**29 + 1, 2**29 + 3


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


def uniform(keys: Keys) -> Float[Array, "batch"]:
    """Draws one number from U(0, 1) for each picture, from its own key."""
    return jax.vmap(lambda key: jax.random.uniform(key, dtype=jnp.float32))(keys)


def great_circle(
    first: Float[Array, "batch *rest"],
    second: Float[Array, "batch *rest"],
    share: Float[Array, "batch"],
) -> Float[Array, "batch *rest"]:
    """Interpolates between two draws of standard normal noise so that each point is typical of it.

    The norm of such noise hardly varies, and the middle of a straight line between two draws is
    shorter by the square root of 2: it would be decoded to an average face. The points between lie
    on a great circle if both norms are equal (Shoemake, "Animating rotation with quaternion
    curves", 1985, section 3.3; White, arXiv 1609.04468, section 2.1).

    Args:
      first: noise at share 0.
      second: noise at share 1.
      share: the place between the two, 0..1.
    """
    # Not -1, which cannot be computed of no pictures.
    flat = len(first), math.prod(first.shape[1:])
    a, b = first.reshape(flat), second.reshape(flat)
    lengths = jnp.linalg.norm(a, axis=1) * jnp.linalg.norm(b, axis=1)
    cosine = jnp.sum(a * b, axis=1) / jnp.maximum(lengths, jnp.finfo(jnp.float32).tiny)
    angle = jnp.arccos(jnp.clip(cosine, -1.0, 1.0))
    # Between almost equal directions, or opposite ones, which have no arc of their own: a line.
    is_arc = (angle > 1e-3) & (angle < math.pi - 1e-3)
    angle = jnp.where(is_arc, angle, 1.0)
    weights = [
        jnp.where(is_arc, jnp.sin(part * angle) / jnp.sin(angle), part)
        for part in (1.0 - share, share)
    ]
    return (a * weights[0][:, None] + b * weights[1][:, None]).reshape(first.shape)


def fold_in(keys: Keys, purpose: int | Int[Array, ""]) -> Keys:
    """Folds a number into each key, so that each purpose has random numbers of its own."""
    return jax.vmap(lambda key: jax.random.fold_in(key, purpose))(keys)
