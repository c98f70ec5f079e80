"""p(x given z) of 8-bit pictures: each sums to one over the 256 levels of every value.

Pictures come in as uint8 0..255. Networks and likelihoods work on the scale of `to_unit`,
where level k is k / 127.5 - 1 and one level is `LEVEL` wide. All sums are in nats, float32.
"""

import math
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

LEVEL = 2.0 / 255.0
# The narrowest scale: a tenth of a level. Narrower ones only feed rounding errors.
MIN_LOG_SCALE = math.log(LEVEL / 10)
MAX_LOG_SCALE = math.log(2.0)

Images = UInt8[Array, "batch height width channel"]
Values = Float[Array, "batch height width channel"]


class Pixels(NamedTuple):
    """What a decoder says of a batch of pictures.

    Attributes:
      location: the middle of each value's distribution (for bernoulli: its logit).
      log_scale: log of its scale, of the same rank and broadcastable to it; ignored by
        likelihoods without a scale.
    """

    location: Values
    log_scale: Float[Array, "#batch #height #width #channel"]


@runtime_checkable
class Likelihood(Protocol):
    """The three functions that make a likelihood."""

    def log_prob(self, images: Images, pixels: Pixels) -> Float[Array, "batch"]:
        """Log-probability of each picture, in nats."""

    def mean(self, pixels: Pixels) -> Values:
        """The picture to show, in grey levels 0..255 (float)."""

    def variance(self, pixels: Pixels) -> Float[Array, "#batch #height #width #channel"]:
        """Variance of each value, in squared units of `to_unit`, levels not yet rounded."""


def to_unit(images: Images | Values) -> Values:
    """Grey levels 0..255 to float32 -1..1; the one place that scales pictures."""
    return images.astype(jnp.float32) * (1 / 127.5) - 1.0


def to_levels(values: Values) -> Values:
    """The inverse of `to_unit`, clipped to 0..255, not rounded."""
    return jnp.clip((values + 1.0) * 127.5, 0.0, 255.0)


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


def _sum(values: Values) -> Float[Array, "batch"]:
    return jnp.sum(values, axis=(1, 2, 3))


class DiscretizedLogistic:
    """A logistic distribution cut into levels (Kingma et al. 2016, appendix of IAF).

    The mass of a level is sigmoid(b) - sigmoid(a) between its edges a < b, which equals
    sigmoid(b) sigmoid(-a) (1 - exp(a - b)): every factor's logarithm is exact in float32, so
    no clamp and no branch on small differences is needed. The first and the last level take
    the tails: the factor of the edge that they lack is 1, and so is that of the width.

    With d the distance of the level's middle from the location and h half a level, both in
    scales, t = exp(-d) and q = exp(-h), the edge nearer to the location has the factor
    1 / (1 + exp(d - h)) = exp(-d) / (t + q) and the farther one 1 / (1 + t q): for both
    together one exponential and one logarithm.
    """

    def log_prob(self, images: Images, pixels: Pixels) -> Float[Array, "batch"]:
        """Log-probability of each picture, in nats."""
        inverse_scale = jnp.exp(-pixels.log_scale)
        middle = (to_unit(images) - pixels.location) * inverse_scale
        half = 0.5 * LEVEL * inverse_scale
        first, last, above = images == 0, images == 255, middle >= 0
        has_near = ~jnp.where(above, first, last)
        has_far = ~jnp.where(above, last, first)
        distance = jnp.where(above, middle, -middle)
        t, q = jnp.exp(-distance), jnp.exp(-half)
        edges = jnp.where(has_near, t + q, 1.0) * jnp.where(has_far, 1.0 + t * q, 1.0)
        width = jnp.broadcast_to(jnp.log(-jnp.expm1(-2.0 * half)), middle.shape)
        return _sum(
            jnp.where(has_near & has_far, width, 0.0)
            - jnp.where(has_near, distance, 0.0)
            - jnp.log(edges)
        )

    def mean(self, pixels: Pixels) -> Values:
        """The middle of the distribution, in grey levels."""
        return to_levels(pixels.location)

    def variance(self, pixels: Pixels) -> Float[Array, "#batch #height #width #channel"]:
        """pi^2 / 3 times the squared scale."""
        return jnp.exp(2.0 * pixels.log_scale) * (math.pi**2 / 3)


class DiscretizedGaussian:
    """A Gaussian cut into levels, the tails in the first and the last.

    With a learned scale this is the sigma-VAE (Rybkin et al. 2021), with a fixed one the
    mean-squared error at its right weight; cut into levels it cannot earn credit by a scale
    narrower than a level, so its bits/dim compare with the other likelihoods'.
    """

    def log_prob(self, images: Images, pixels: Pixels) -> Float[Array, "batch"]:
        """Log-probability of each picture, in nats."""
        inverse_scale = jnp.exp(-pixels.log_scale)
        middle = (to_unit(images) - pixels.location) * inverse_scale
        half = jnp.broadcast_to(0.5 * LEVEL * inverse_scale, middle.shape)
        infinite = jnp.full_like(middle, jnp.inf)
        lower = jnp.where(images == 0, -infinite, middle - half)
        upper = jnp.where(images == 255, infinite, middle + half)
        # log(Phi(b) - Phi(a)) is exact only where both are small: mirror what lies above zero.
        mirror = middle > 0
        lower, upper = jnp.where(mirror, -upper, lower), jnp.where(mirror, -lower, upper)
        log_upper = _log_ndtr(upper)
        log_ratio = _log_ndtr(lower) - log_upper
        return _sum(log_upper + _log1mexp(-log_ratio))

    def mean(self, pixels: Pixels) -> Values:
        """The middle of the distribution, in grey levels."""
        return to_levels(pixels.location)

    def variance(self, pixels: Pixels) -> Float[Array, "#batch #height #width #channel"]:
        """The squared scale."""
        return jnp.exp(2.0 * pixels.log_scale)


class Bernoulli:
    """The Bernoulli cross-entropy of grey values, normalised over their 256 levels.

    With logit l, level k has a mass proportional to exp(l k / 255): the continuous Bernoulli
    (Loaiza-Ganem and Cunningham 2019) cut into levels. The usual cross-entropy on grey
    pictures leaves out the normaliser and so is no likelihood.
    """

    def log_prob(self, images: Images, pixels: Pixels) -> Float[Array, "batch"]:
        """Log-probability of each picture, in nats."""
        logit = pixels.location
        return _sum(logit * (images.astype(jnp.float32) / 255.0) - _log_tilt(logit))

    def mean(self, pixels: Pixels) -> Values:
        """The mean level, the derivative of the log-normaliser."""
        return 255.0 * jax.grad(lambda logit: jnp.sum(_log_tilt(logit)))(pixels.location)

    def variance(self, pixels: Pixels) -> Float[Array, "#batch #height #width #channel"]:
        """The second derivative of the log-normaliser, on the scale of `to_unit`."""
        mean = jax.grad(lambda logit: jnp.sum(_log_tilt(logit)))
        return 4.0 * jax.grad(lambda logit: jnp.sum(mean(logit)))(pixels.location)


LIKELIHOODS = {
    "logistic": DiscretizedLogistic(),
    "gaussian": DiscretizedGaussian(),
    "bernoulli": Bernoulli(),
}


def _log_ndtr(x: Values) -> Values:
    """log Phi(x), with gradients that stay finite at infinite edges."""
    finite = jnp.isfinite(x)
    inner = jax.scipy.special.log_ndtr(jnp.where(finite, x, 0.0))
    return jnp.where(finite, inner, jnp.where(x > 0, 0.0, -jnp.inf))


def _log1mexp(x: Values) -> Values:
    """log(1 - exp(-x)) for x > 0 (Maechler 2012); 0 at infinity."""
    # A level far out in the tail of a narrow Gaussian can lose its width to rounding.
    x = jnp.maximum(x, 1e-30)
    small = x < math.log(2.0)
    near = jnp.log(-jnp.expm1(-jnp.where(small, x, 1.0)))
    far = jnp.log1p(-jnp.exp(-jnp.where(small, 1.0, x)))
    return jnp.where(small, near, far)


def _log_tilt(logit: Values) -> Values:
    """log of the sum over k = 0..255 of exp(logit k / 255), a geometric series."""
    # Near zero, the cumulants of the uniform distribution on 0..255, smooth through zero.
    near = math.log(256.0) + 0.5 * logit + (256.0**2 - 1) / 24 * (logit / 255.0) ** 2
    small = jnp.abs(logit) < 0.25
    step = jnp.where(small, 1.0, jnp.abs(logit) / 255.0)
    far = jnp.log(-jnp.expm1(-256.0 * step)) - jnp.log(-jnp.expm1(-step))
    return jnp.where(small, near, jnp.maximum(logit, 0.0) + far)
