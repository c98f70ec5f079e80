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
# The narrowest scale: a tenth of a level. Narrower ones only feed rounding errors.
MIN_LOG_SCALE = math.log(LEVEL / 10)
MAX_LOG_SCALE = math.log(2.0)

Images = UInt8[Array, "batch height width channel"]
Values = Float[Array, "batch height width channel"]
# Mean, and variance, which may be the same for many values.
Moments = tuple[Values, Float[Array, "#batch #height #width #channel"]]


class Pixels(NamedTuple):
    """What a decoder says of a batch of pictures whose values are independent given z.

    Attributes:
      location: the middle of each value's distribution (for bernoulli: its logit).
      log_scale: log of its scale, of the same rank and broadcastable to it; ignored by
        likelihoods without a scale.
    """

    location: Values
    log_scale: Float[Array, "#batch #height #width #channel"]


@runtime_checkable
class Likelihood(Protocol):
    """What makes a likelihood; `pixels` are `Pixels` or a likelihood's own.

    Attributes:
      bits: how many bits of each value count, the highest.
    """

    bits: int

    def log_prob(self, images: Images, pixels: Any) -> Float[Array, "batch"]:
        """Log-probability of each picture, in nats."""

    def moments(self, pixels: Any) -> Moments:
        """Mean and variance of each value, on the scale of `to_unit`."""


def to_unit(images: UInt8[Array, "*shape"], bits: int = 8) -> Float[Array, "*shape"]:
    """Grey levels 0..255 to float32 -1..1: evenly from the first level to the last that count."""
    return (images >> (8 - bits)).astype(jnp.float32) * (2 / (2**bits - 1)) - 1.0


def to_levels(values: Values) -> Values:
    """The inverse of `to_unit`, clipped to 0..255, not rounded."""
    return jnp.clip((values + 1.0) * 127.5, 0.0, 255.0)


def to_picture(likelihood: Likelihood, pixels: Any) -> Images:
    """The picture to show for what a decoder says: the mean of each value, rounded."""
    return jnp.round(to_levels(likelihood.moments(pixels)[0])).astype(jnp.uint8)


def sum_of_picture(values: Values) -> Float[Array, "batch"]:
    """Summed over all values of a picture."""
    return jnp.sum(values, axis=(1, 2, 3))


@jax.custom_vjp
def bound_log_scale(log_scale: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Keeps a learned log-scale within the limits in which the sums are exact.

    At a limit the gradient (of a loss) still leads back inside. A plain clip has none there:
    momentum that carries a scale past the floor would leave it there for ever.
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
