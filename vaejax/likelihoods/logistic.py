"""The discretised logistic likelihood (Kingma et al. 2016, appendix of the IAF paper)."""

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
    """Computes the log-mass of each value's level, in nats; over all levels the masses sum to one.

    The mass of a level is sigmoid(b) - sigmoid(a) between its edges a < b, which equals
    sigmoid(b) sigmoid(-a) (1 - exp(a - b)): every factor's logarithm is exact in float32, so
    no clamp and no branch on small differences is needed. The first and the last level take
    the tails: the factor of their missing edge is 1, and so is that of the width.

    Args:
      images: grey levels 0..255.
      location: location of the logistic distribution, on the scale of `to_unit`.
      log_scale: log of its scale, in the same unit.
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
    """Computes `log_mass` from distances in units of the scale.

    With t = exp(-distance) and q = exp(-half), the edge nearer to the location has the factor
    1 / (1 + exp(distance - half)) = t / (t + q) and the farther one 1 / (1 + t q), so that both
    together need one exponential of the distance and one logarithm.

    Args:
      distance: distance of the level's middle from the location, at least 0.
      half: half the width of a level.
      has_near: whether the level has an edge on the side of the location.
      has_far: whether it has an edge on the other side.
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
    """Computes the derivatives in closed form, from those of the two edges and of the width."""
    distance, half, has_near, has_far = primals
    distance_dot, half_dot, _, _ = tangents
    t, q = jnp.exp(-distance), jnp.exp(-half)
    near = jnp.where(has_near, q / (t + q), 0.0)
    far = jnp.where(has_far, t * q / (1.0 + t * q), 0.0)
    width = jnp.where(has_near & has_far, 2.0 / jnp.expm1(2.0 * half), 0.0)
    slope = (far - near) * distance_dot + (near + far + width) * half_dot
    return _log_mass(*primals), slope


class DiscretizedLogistic:
    """A discretised logistic distribution of each value.

    Attributes:
      bits: number of most significant bits of each value that are modelled.
    """

    def __init__(self, bits: int = 8):
        """Sets the number of bits that are modelled, at most 8."""
        self.bits = bits

    def log_prob(self, images: Images, pixels: Pixels) -> Float[Array, "batch"]:
        """Returns the log-probability of each picture, in nats."""
        return sum_of_picture(log_mass(images, *pixels, self.bits))

    def moments(self, pixels: Pixels) -> Moments:
        """Returns mean and variance of each value: the location, and pi^2 / 3 times scale^2."""
        return pixels.location, jnp.exp(2.0 * pixels.log_scale) * (math.pi**2 / 3)
