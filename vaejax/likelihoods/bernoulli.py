"""The Bernoulli cross-entropy, normalised to a likelihood of grey values."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaejax.likelihoods.values import Images, Moments, Pixels, Values, sum_of_picture


class Bernoulli:
    """The Bernoulli cross-entropy of grey values, normalised over their 256 levels.

    With logit l, level k has a mass proportional to exp(l k / 255): the continuous Bernoulli
    (Loaiza-Ganem and Cunningham 2019), discretised. The usual cross-entropy on grey pictures
    omits the normaliser and is therefore not a likelihood.
    """

    bits = 8

    def log_prob(self, images: Images, pixels: Pixels) -> Float[Array, "batch"]:
        """Returns the log-probability of each picture, in nats."""
        logit = pixels.location
        return sum_of_picture(logit * (images.astype(jnp.float32) / 255.0) - _log_tilt(logit))

    def moments(self, pixels: Pixels) -> Moments:
        """Returns mean and variance of each value, on the scale of `to_unit`.

        The first two derivatives of the log-normaliser are mean and variance of k / 255; they are
        mapped from [0, 1] to [-1, 1].
        """
        slope = jax.grad(lambda logit: jnp.sum(_log_tilt(logit)))
        bend = jax.grad(lambda logit: jnp.sum(slope(logit)))
        return 2.0 * slope(pixels.location) - 1.0, 4.0 * bend(pixels.location)


def _log_tilt(logit: Values) -> Values:
    """Computes log of the sum over k = 0..255 of exp(logit k / 255), a geometric series."""
    # Near zero, a series in the cumulants of the uniform distribution on 0..255, smooth at zero.
    near = math.log(256.0) + 0.5 * logit + (256.0**2 - 1) / 24 * (logit / 255.0) ** 2
    small = jnp.abs(logit) < 0.25
    step = jnp.where(small, 1.0, jnp.abs(logit) / 255.0)
    far = jnp.log(-jnp.expm1(-256.0 * step)) - jnp.log(-jnp.expm1(-step))
    return jnp.where(small, near, jnp.maximum(logit, 0.0) + far)
