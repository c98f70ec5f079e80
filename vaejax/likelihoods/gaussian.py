"""The discretised Gaussian likelihood."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaejax.likelihoods.values import (
    LEVEL,
    Images,
    Moments,
    Pixels,
    Values,
    sum_of_picture,
    to_unit,
)


class DiscretizedGaussian:
    """A Gaussian discretised to levels, of which the first and the last take the tails.

    With a learned scale this is the sigma-VAE (Rybkin et al. 2021), with a fixed scale the mean
    squared error with its correct weight. Because it is discretised, a scale narrower than a level
    gains nothing, so its bits/dim are comparable with those of the other likelihoods.
    """

    bits = 8

    def log_prob(self, images: Images, pixels: Pixels) -> Float[Array, "batch"]:
        """Returns the log-probability of each picture, in nats."""
        inverse_scale = jnp.exp(-pixels.log_scale)
        middle = (to_unit(images) - pixels.location) * inverse_scale
        half = jnp.broadcast_to(0.5 * LEVEL * inverse_scale, middle.shape)
        infinite = jnp.full_like(middle, jnp.inf)
        lower = jnp.where(images == 0, -infinite, middle - half)
        upper = jnp.where(images == 255, infinite, middle + half)
        # log(Phi(b) - Phi(a)) is accurate only if both are small: levels above zero are mirrored.
        mirror = middle > 0
        lower, upper = jnp.where(mirror, -upper, lower), jnp.where(mirror, -lower, upper)
        log_upper = _log_ndtr(upper)
        log_ratio = _log_ndtr(lower) - log_upper
        return sum_of_picture(log_upper + _log1mexp(-log_ratio))

    def moments(self, pixels: Pixels) -> Moments:
        """Returns mean and variance of each value: the location and the squared scale."""
        return pixels.location, jnp.exp(2.0 * pixels.log_scale)


def _log_ndtr(x: Values) -> Values:
    """Computes log Phi(x), with gradients that stay finite at infinite edges."""
    finite = jnp.isfinite(x)
    inner = jax.scipy.special.log_ndtr(jnp.where(finite, x, 0.0))
    return jnp.where(finite, inner, jnp.where(x > 0, 0.0, -jnp.inf))


def _log1mexp(x: Values) -> Values:
    """Computes log(1 - exp(-x)) for x > 0 (Maechler 2012); 0 at infinity."""
    # A level far out in the tail of a narrow Gaussian can lose its width to rounding.
    x = jnp.maximum(x, 1e-30)
    small = x < math.log(2.0)
    near = jnp.log(-jnp.expm1(-jnp.where(small, x, 1.0)))
    far = jnp.log1p(-jnp.exp(-jnp.where(small, 1.0, x)))
    return jnp.where(small, near, far)
