"""The scale of pixel values, and the protocol of a likelihood.

Pictures come in as uint8 0..255. Networks and likelihoods work on the scale of `to_unit`,
where level k is k / 127.5 - 1 and one level is `LEVEL` wide. All sums are in nats, float32.
"""

import math
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

LEVEL = 2.0 / 255.0
# The narrowest scale: a tenth of a level. Narrower ones only increase rounding errors.
MIN_LOG_SCALE = math.log(LEVEL / 10)
MAX_LOG_SCALE = math.log(2.0)

Images = UInt8[Array, "batch height width channel"]
Values = Float[Array, "batch height width channel"]
# Mean and variance of each value; values may share a variance, which then broadcasts.
Moments = tuple[Values, Float[Array, "#batch #height #width #channel"]]


class Pixels(NamedTuple):
    """A decoder's output for a batch of pictures whose values are independent given z.

    Attributes:
      location: location of each value's distribution on the scale of `to_unit` (for bernoulli:
        its logit).
      log_scale: log of the scale, of the same rank and broadcastable to `location`; ignored by
        likelihoods without a scale.
    """

    location: Values
    log_scale: Float[Array, "#batch #height #width #channel"]


@runtime_checkable
class Likelihood(Protocol):
    """The protocol of a likelihood; `pixels` are `Pixels`, or another type that it defines.

    Attributes:
      bits: number of most significant bits of each value that are modelled.
    """

    bits: int

    def log_prob(self, images: Images, pixels: Any) -> Float[Array, "batch"]:
        """Returns the log-probability of each picture, in nats."""

    def moments(self, pixels: Any) -> Moments:
        """Returns mean and variance of each value, on the scale of `to_unit`."""


def to_unit(images: UInt8[Array, "*shape"], bits: int = 8) -> Float[Array, "*shape"]:
    """Maps grey levels 0..255 to float32 in [-1, 1].

    The 2^bits levels of the `bits` most significant bits are spaced evenly from -1 to 1.
    """
    return (images >> (8 - bits)).astype(jnp.float32) * (2 / (2**bits - 1)) - 1.0


def to_levels(values: Values) -> Values:
    """Maps values on the scale of `to_unit` to grey levels, clipped to 0..255 but not rounded."""
    return jnp.clip((values + 1.0) * 127.5, 0.0, 255.0)


def to_picture(likelihood: Likelihood, pixels: Any) -> Images:
    """Returns the picture to show for a decoder's output: the mean of each value, rounded."""
    return jnp.round(to_levels(likelihood.moments(pixels)[0])).astype(jnp.uint8)


def sum_of_picture(values: Values) -> Float[Array, "batch"]:
    """Sums over all values of each picture."""
    return jnp.sum(values, axis=(1, 2, 3))


@jax.custom_vjp
def bound_log_scale(log_scale: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Clips a learned log-scale to `MIN_LOG_SCALE` .. `MAX_LOG_SCALE`, where the sums are exact.

    At a limit the gradient of a loss still leads back inside. A plain clip has no gradient there: a
    scale that momentum carries past the floor would stay there forever.
    """
    return jnp.clip(log_scale, MIN_LOG_SCALE, MAX_LOG_SCALE)


def _bound_forward(log_scale: Array) -> tuple[Array, Array]:
    return bound_log_scale(log_scale), log_scale


def _bound_backward(log_scale: Array, gradient: Array) -> tuple[Array]:
    outward = ((log_scale <= MIN_LOG_SCALE) & (gradient > 0)) | (
        (log_scale >= MAX_LOG_SCALE) & (gradient < 0)
    )
    return (jnp.where(outward, jnp.zeros_like(gradient), gradient),)


bound_log_scale.defvjp(_bound_forward, _bound_backward)
