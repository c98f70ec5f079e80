"""The logistic distribution cut into levels (Kingma et al. 2016, appendix of IAF)."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, UInt8

from vaejax.likelihoods.values import Images, Moments, Pixels, sum_of_picture, to_unit


def log_mass(
    images: UInt8[Array, "*#shape"],
    location: Float[Array, "*#shape"],
    log_scale: Float[Array, "*#shape"],
    bits: int = 8,
) -> Float[Array, "*shape"]:
    """Log of the mass of each value's level, in nats; over all levels the masses sum to one.

    The mass of a level is sigmoid(b) - sigmoid(a) between its edges a < b, which equals
    sigmoid(b) sigmoid(-a) (1 - exp(a - b)): every factor's logarithm is exact in float32, so
    no clamp and no branch on small differences is needed. The first and the last level take
    the tails: the factor of the edge that they lack is 1, and so is that of the width.

    Args:
      images: grey levels 0..255.
      location: on the scale of `to_unit`.
      log_scale: log scale of the logistic distribution.
      bits: the number of most significant bits of each value that are modelled. The centres of
        the 2^bits levels lie evenly on [-1, 1], and a level is as wide as their spacing, so that
        there is no gap and no overlap.
    """
    top = 2**bits - 1
    level = images >> (8 - bits)
    inverse_scale = jnp.exp(-log_scale)
    middle = (to_unit(images, bits) - location) * inverse_scale
    first, last, above = level == 0, level == top, middle >= 0
    has_near = ~jnp.where(above, first, last)
    has_far = ~jnp.where(above, last, first)
    return _log_mass(jnp.where(above, middle, -middle), inverse_scale / top, has_near, has_far)


@jax.custom_jvp
def _log_mass(
    distance: Float[Array, "*shape"],
    half: Float[Array, "*#shape"],
    has_near: Bool[Array, "*#shape"],
    has_far: Bool[Array, "*#shape"],
) -> Float[Array, "*shape"]:
    """With the distance of a level's middle from the location and half a level, in scales.

    With t = exp(-distance) and q = exp(-half), the edge nearer to the location has the factor
    1 / (1 + exp(distance - half)) = t / (t + q) and the farther one 1 / (1 + t q): for both
    together one exponential and one logarithm.
    """
    t, q = jnp.exp(-distance), jnp.exp(-half)
    edges = jnp.where(has_near, t + q, 1.0) * jnp.where(has_far, 1.0 + t * q, 1.0)
    width = jnp.log(-jnp.expm1(-2.0 * half))
    return (
        jnp.where(has_near & has_far, width, 0.0)
        - jnp.where(has_near, distance, 0.0)
        - jnp.log(edges)
    )


@_log_mass.defjvp
def _log_mass_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    """The slopes in closed form: with 1 - sigmoid of each edge, and that of the width."""
    distance, half, has_near, has_far = primals
    distance_dot, half_dot, _, _ = tangents
    t, q = jnp.exp(-distance), jnp.exp(-half)
    near = jnp.where(has_near, q / (t + q), 0.0)
    far = jnp.where(has_far, t * q / (1.0 + t * q), 0.0)
    width = jnp.where(has_near & has_far, 2.0 / jnp.expm1(2.0 * half), 0.0)
    slope = (far - near) * distance_dot + (near + far + width) * half_dot
    return _log_mass(*primals), slope


class DiscretizedLogistic:
    """One logistic for each value.

    Attributes:
      bits: how many bits of each value count.
    """

    def __init__(self, bits: int = 8):
        """Sets the number of bits that count, at most 8."""
        self.bits = bits

    def log_prob(self, images: Images, pixels: Pixels) -> Float[Array, "batch"]:
        """Log-probability of each picture, in nats."""
        return sum_of_picture(log_mass(images, *pixels, self.bits))

    def moments(self, pixels: Pixels) -> Moments:
        """The middle of the distribution, and pi^2 / 3 times the squared scale."""
        return pixels.location, jnp.exp(2.0 * pixels.log_scale) * (math.pi**2 / 3)
