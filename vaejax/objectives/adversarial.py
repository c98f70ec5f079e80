"""Losses of adversarial training (Goodfellow et al. 2014), in logits of a discriminator."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Logits = Float[Array, "..."]


def discriminator_loss(real: Logits, fake: Logits) -> Float[Array, ""]:
    """Computes the cross-entropy of telling real pictures from generated ones, in nats a logit.

    Args:
      real: logits of real pictures.
      fake: logits of generated pictures.
    """
    return jnp.mean(jax.nn.softplus(-real)) + jnp.mean(jax.nn.softplus(fake))


def generator_loss(fake: Logits) -> Float[Array, ""]:
    """Computes the non-saturating loss of generated pictures (Goodfellow et al. 2014, section 3).

    Args:
      fake: logits of generated pictures.
    """
    return jnp.mean(jax.nn.softplus(-fake))


def gradient_penalty(
    logits: Callable[[Float[Array, "batch *rest"]], Float[Array, "batch"]],
    pictures: Float[Array, "batch *rest"],
) -> Float[Array, ""]:
    """Computes the penalty R1: the mean of half the squared norm of the logits' gradient.

    Mescheder, Geiger and Nowozin, "Which training methods for GANs do actually converge?" (2018),
    eq. 9 with γ = 1.

    Args:
      logits: the discriminator as a function of pictures alone; each logit depends on one picture.
      pictures: real pictures.
    """
    slopes = jax.grad(lambda pictures: jnp.sum(logits(pictures)))(pictures)
    return 0.5 * jnp.mean(jnp.sum(slopes**2, axis=tuple(range(1, slopes.ndim))))
