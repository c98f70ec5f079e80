"""A mixture of discretised logistics, autoregressive over colour (Salimans et al. 2017)."""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from vaejax.likelihoods.logistic import log_mass
from vaejax.likelihoods.values import MIN_LOG_SCALE, Images, Moments, bound_log_scale, to_unit

# Mixture parameters of a picture that are worked on at once, 2 MB of them: a 256 px picture has
# 25 MB, and several arrays as large would set the peak memory of a whole training step.
_AT_ONCE = 2**19


class MixturePixels(NamedTuple):
    """What a decoder says of a batch of pictures: the mixture's parameters, not yet spelt out.

    Attributes:
      hidden: the decoder's last features.
      kernel, bias: of the linear map from a pixel's features to its parameters, as many as
        `parameters_per_pixel` says.
    """

    hidden: Float[Array, "batch height width feature"]
    kernel: Float[Array, "feature parameter"]
    bias: Float[Array, "parameter"]


class Components(NamedTuple):
    """The components of each pixel's mixture; each is shared by the pixel's channels.

    Pixels come last: they fill a processor's vectors, which a few components would not.

    Attributes:
      log_weight: normalised.
      location: on the scale of `to_unit`, before colours are taken into account.
      log_scale: within the bounds of `bound_log_scale`.
      colour: what a channel's location gains for each unit of an earlier one: green for red,
        blue for red, blue for green. Grey pictures have none.
    """

    log_weight: Float[Array, "component pixel"]
    location: Float[Array, "channel component pixel"]
    log_scale: Float[Array, "channel component pixel"]
    colour: Float[Array, "pair component pixel"]


def parameters_per_pixel(channels: int, components: int) -> int:
    """Numbers that a decoder gives for each pixel: weights, locations, scales and colours."""
    return components * _rows(channels)


def _rows(channels: int) -> int:
    """Parameters of each component: a weight, locations, scales, and pairs of channels."""
    return 1 + 2 * channels + channels * (channels - 1) // 2


def first_bias(channels: int, components: int) -> Float[Array, "parameter"]:
    """Where the parameters start: equal weights, locations spread evenly, and wide scales."""
    middles = (2 * jnp.arange(components) + 1) / components - 1.0
    rows = jnp.zeros((_rows(channels), components))
    rows = rows.at[1 : 1 + channels].set(0.5 * middles[None])
    return rows.at[1 + channels : 1 + 2 * channels].set(math.log(1 / 6)).reshape(-1)


class MixtureOfLogistics:
    """log of the sum over components of weight times the product of the channels' masses.

    Attributes:
      channels: 1 or 3.
      bits: how many bits of each value count, see `logistic.log_mass`.
    """

    def __init__(self, channels: int, bits: int = 8):
        """The number of components follows from the pixels."""
        self.channels, self.bits = channels, bits

    def log_prob(self, images: Images, pixels: MixturePixels) -> Float[Array, "batch"]:
        """Log-probability of each picture, in nats."""

        def of_rows(pixels: MixturePixels, images: Images) -> Float[Array, "batch row"]:
            masses = self.log_masses(images, self.components(pixels))
            return jnp.sum(masses.reshape(images.shape[:3]), axis=2)

        return jnp.sum(_in_strips(of_rows, pixels, images), axis=1)

    def moments(self, pixels: MixturePixels) -> Moments:
        """Mean and variance of the mixture, by the law of total variance."""

        def of_rows(pixels: MixturePixels) -> Moments:
            mixture = self.components(pixels)
            weight = jnp.exp(mixture.log_weight)

            def of_channel(means: Array, variances: Array) -> tuple[Array, Array]:
                mean = _total(weight * means)
                # About the mean: the difference of two large squares would lose its digits.
                away = (means - mean[None]) ** 2
                return mean, _total(weight * (variances + away))

            moments = [of_channel(*own) for own in _moments_of_components(mixture)]
            shape, identity = (*pixels.hidden.shape[:3], self.channels), jnp.eye(self.channels)
            rows = [jnp.stack(part) for part in zip(*moments)]
            mean, variance = (_product(each.T, identity).reshape(shape) for each in rows)
            return mean, variance

        return _in_strips(of_rows, pixels)

    def components(self, pixels: MixturePixels) -> Components:
        """The mixture of every pixel."""
        hidden, kernel, bias = pixels
        channels = self.channels
        features = hidden.reshape(-1, hidden.shape[-1])

        def rows(kernel: Array, bias: Array) -> Array:
            return jnp.einsum("rcf,pf->rcp", kernel, features) + bias

        # The map is split, and not the large array that it gives, whose gradient would have to
        # be put together.
        ends = [1, 1 + channels, 1 + 2 * channels]
        kernels = jnp.split(kernel.T.reshape(_rows(channels), -1, len(kernel)), ends)
        biases = jnp.split(bias.reshape(_rows(channels), -1, 1), ends)
        weight, location, log_scale, colour = map(rows, kernels, biases)
        return Components(
            jax.nn.log_softmax(weight[0], axis=0),
            location,
            bound_log_scale(log_scale),
            jnp.tanh(colour),
        )

    def log_masses(self, images: Images, mixture: Components) -> Float[Array, "pixel"]:
        """Log of the mass of each pixel's colour, in nats."""
        values = images.astype(jnp.float32).reshape(-1, self.channels)
        levels = _product(jnp.eye(self.channels), values.T).astype(jnp.uint8)[:, None]
        # What is known of an earlier colour is its level, and no more bits than count.
        known = to_unit(levels, self.bits)
        location = _coloured(mixture.location, mixture.colour, known)
        masses = log_mass(levels, location, mixture.log_scale, self.bits)
        return jax.nn.logsumexp(mixture.log_weight + _total(masses), axis=0)


# Of pictures or their moments with the identity: a transpose that is done once. A plain one XLA's
# CPU compiler would do, with all that was done to its rows before, anew for every component in
# every sum that it is fused into.
_product = functools.partial(jnp.matmul, precision="highest")


def _total(rows: Array) -> Array:
    """The sum over the first axis, of a few rows: on a CPU, XLA adds them 30 times sooner so."""
    return functools.reduce(jnp.add, jnp.split(rows, len(rows)))[0]


# Variance of a logistic distribution with scale 1.
_LOGISTIC = math.pi**2 / 3
_NARROWEST = _LOGISTIC * math.exp(2 * MIN_LOG_SCALE)


def _coloured(location: Array, colour: Array, x: Array) -> Array:
    """Locations given the earlier channels' values `x` [channel, 1, pixel]."""
    if location.shape[0] == 1:
        return location
    a, b, c = jnp.split(colour, 3)
    red, green, _ = jnp.split(x, 3)
    return location + jnp.concatenate([jnp.zeros_like(a), a * red, b * red + c * green])


def _moments_of_components(mixture: Components) -> list[tuple[Array, Array]]:
    """Mean and variance [component, pixel] of each channel, earlier channels not known.

    Green and blue are taken at the means of what they depend on.
    """
    location, scale = mixture.location, jnp.exp(mixture.log_scale)
    own = _LOGISTIC * scale**2
    red, of_red = _within_range(location[0], scale[0], own[0])
    if len(location) == 1:
        return [(red, of_red)]
    a, b, c = mixture.colour
    green, of_green = _within_range(location[1] + a * red, scale[1], own[1] + a**2 * of_red)
    # Blue as a sum of independent parts: of red's, of green's own and of its own.
    of_blue = own[2] + (b + c * a) ** 2 * of_red + c**2 * own[1]
    blue, of_blue = _within_range(location[2] + b * red + c * green, scale[2], of_blue)
    return [(red, of_red), (green, of_green), (blue, of_blue)]


def _within_range(location: Array, scale: Array, variance: Array) -> tuple[Array, Array]:
    """Mean and variance of a logistic variable whose values beyond -1 and 1 count as these.

    E = 1 - the integral of the distribution function from -1 to 1. The variance is no larger than
    a range with this mean allows (Bhatia and Davis 2000), and no smaller than the narrowest's:
    far beyond an end it would be nothing, or less by rounding.
    """
    above, below = (jax.nn.softplus((end - location) / scale) for end in (1.0, -1.0))
    mean = 1.0 - scale * (above - below)
    return mean, jnp.maximum(jnp.minimum(variance, 1.0 - mean**2), _NARROWEST)


def _in_strips(function: Callable, pixels: MixturePixels, *images: Images) -> PyTree[Array]:
    """`function(pixels, *images)`, arrays [batch, row, ...], of one strip of rows after the other.

    Strips are computed again for their gradient, so that one strip's mixtures are all that is
    ever kept. A small picture is one strip and nothing is computed twice.
    """
    batch, height, width, _ = pixels.hidden.shape
    rows = max(1, _AT_ONCE // (width * pixels.bias.size))
    if rows >= height:
        return function(pixels, *images)

    def of_strip(hidden: Array, *images: Images) -> PyTree[Array]:
        return function(pixels._replace(hidden=hidden), *images)

    maps = pixels.hidden, *images
    count = height // rows
    whole = count * rows
    strips = [x[:, :whole].reshape(batch, count, rows, *x.shape[2:]) for x in maps]
    strips = [jnp.moveaxis(x, 1, 0) for x in strips]
    done = jax.lax.map(jax.checkpoint(lambda strip: of_strip(*strip)), strips)
    done = jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1).reshape(batch, whole, *x.shape[3:]), done)
    if whole == height:
        return done
    rest = of_strip(*(x[:, whole:] for x in maps))
    return jax.tree.map(lambda *parts: jnp.concatenate(parts, axis=1), done, rest)
