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

# Mixture parameters of a picture that are processed at once, 2 MB of them: a 256 px picture has
# 25 MB, and several arrays of that size would set the peak memory of a whole training step.
_AT_ONCE = 2**19


class MixturePixels(NamedTuple):
    """A decoder's output for a batch of pictures, from which the mixtures are computed in strips.

    Attributes:
      hidden: the decoder's last features.
      kernel, bias: linear map from a pixel's features to the parameters of its mixture, whose
        number is `parameters_per_pixel`.
    """

    hidden: Float[Array, "batch height width feature"]
    kernel: Float[Array, "feature parameter"]
    bias: Float[Array, "parameter"]


class Components(NamedTuple):
    """The parameters of each pixel's mixture; the channels of a pixel share the weights.

    The pixel axis is the last: it fills a processor's vectors, which a few components would not.

    Attributes:
      log_weight: log of the weights, which sum to one over the components.
      location: location of each channel's logistic on the scale of `to_unit`, before `colour`.
      log_scale: log of its scale, within the bounds of `bound_log_scale`.
      colour: coefficients by which a channel's location depends on the value of an earlier one:
        green on red, blue on red, blue on green. Grey pictures have none.
    """

    log_weight: Float[Array, "component pixel"]
    location: Float[Array, "channel component pixel"]
    log_scale: Float[Array, "channel component pixel"]
    colour: Float[Array, "pair component pixel"]


def parameters_per_pixel(channels: int, components: int) -> int:
    """Returns the number of parameters per pixel: weights, locations, scales and colours."""
    return components * _rows(channels)


def _rows(channels: int) -> int:
    """Returns the number of parameters per component: a weight, locations, scales and colours."""
    return 1 + 2 * channels + channels * (channels - 1) // 2


def first_bias(channels: int, components: int) -> Float[Array, "parameter"]:
    """Returns the initial bias: equal weights, evenly spread locations, and wide scales."""
    middles = (2 * jnp.arange(components) + 1) / components - 1.0
    rows = jnp.zeros((_rows(channels), components))
    rows = rows.at[1 : 1 + channels].set(0.5 * middles[None])
    return rows.at[1 + channels : 1 + 2 * channels].set(math.log(1 / 6)).reshape(-1)


class MixtureOfLogistics:
    """A mixture of discretised logistics for each pixel, autoregressive over its channels.

    The log-probability of a pixel is the log of the sum over components of weight times the product
    of the channels' masses (Salimans et al. 2017, section 2).

    Attributes:
      channels: channels of the pictures, 1 or 3.
      bits: number of most significant bits of each value that are modelled, see
        `logistic.log_mass`.
    """

    def __init__(self, channels: int, bits: int = 8):
        """Sets the attributes; the number of components follows from the pixels."""
        self.channels, self.bits = channels, bits

    def log_prob(self, images: Images, pixels: MixturePixels) -> Float[Array, "batch"]:
        """Returns the log-probability of each picture, in nats."""

        def of_rows(pixels: MixturePixels, images: Images) -> Float[Array, "batch row"]:
            masses = self.log_masses(images, self.components(pixels))
            return jnp.sum(masses.reshape(images.shape[:3]), axis=2)

        return jnp.sum(_in_strips(of_rows, pixels, images), axis=1)

    def moments(self, pixels: MixturePixels) -> Moments:
        """Returns mean and variance of each value, by the law of total variance over components."""

        def of_rows(pixels: MixturePixels) -> Moments:
            mixture = self.components(pixels)
            weight = jnp.exp(mixture.log_weight)

            def of_channel(means: Array, variances: Array) -> tuple[Array, Array]:
                mean = _total(weight * means)
                # Taken about the mean: a difference of two large squares would lose precision.
                away = (means - mean[None]) ** 2
                return mean, _total(weight * (variances + away))

            moments = [of_channel(*own) for own in _moments_of_components(mixture)]
            shape, identity = (*pixels.hidden.shape[:3], self.channels), jnp.eye(self.channels)
            rows = [jnp.stack(part) for part in zip(*moments)]
            mean, variance = (_product(each.T, identity).reshape(shape) for each in rows)
            return mean, variance

        return _in_strips(of_rows, pixels)

    def components(self, pixels: MixturePixels) -> Components:
        """Computes the mixture of every pixel."""
        hidden, kernel, bias = pixels
        channels = self.channels
        features = hidden.reshape(-1, hidden.shape[-1])

        def rows(kernel: Array, bias: Array) -> Array:
            return jnp.einsum("rcf,pf->rcp", kernel, features) + bias

        # The kernel is split rather than the map's large output, whose gradient would have to be
        # concatenated.
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
        """Computes the log-mass of each pixel's colour, in nats."""
        values = images.astype(jnp.float32).reshape(-1, self.channels)
        levels = _product(jnp.eye(self.channels), values.T).astype(jnp.uint8)[:, None]
        # A channel depends on the levels of earlier ones, not on the bits that are not modelled.
        known = to_unit(levels, self.bits)
        location = _coloured(mixture.location, mixture.colour, known)
        masses = log_mass(levels, location, mixture.log_scale, self.bits)
        return jax.nn.logsumexp(mixture.log_weight + _total(masses), axis=0)


# A product with the identity is a transpose that is computed once. XLA's CPU compiler would fuse a
# plain transpose of pictures or moments, and all earlier operations on its rows, into every sum,
# and compute them again for every component.
_product = functools.partial(jnp.matmul, precision="highest")


def _total(rows: Array) -> Array:
    """Sums over a short first axis: on a CPU, XLA is 30 times faster if the rows are split."""
    return functools.reduce(jnp.add, jnp.split(rows, len(rows)))[0]


# Variance of a logistic distribution with scale 1.
_LOGISTIC = math.pi**2 / 3
_NARROWEST = _LOGISTIC * math.exp(2 * MIN_LOG_SCALE)


def _coloured(location: Array, colour: Array, x: Array) -> Array:
    """Returns the locations given the earlier channels' values `x` [channel, 1, pixel]."""
    if location.shape[0] == 1:
        return location
    a, b, c = jnp.split(colour, 3)
    red, green, _ = jnp.split(x, 3)
    return location + jnp.concatenate([jnp.zeros_like(a), a * red, b * red + c * green])


def _moments_of_components(mixture: Components) -> list[tuple[Array, Array]]:
    """Returns mean and variance [component, pixel] of each channel, given no other channel.

    The locations of green and blue are taken at the means of the channels that they depend on.
    """
    location, scale = mixture.location, jnp.exp(mixture.log_scale)
    own = _LOGISTIC * scale**2
    red, of_red = _within_range(location[0], scale[0], own[0])
    if len(location) == 1:
        return [(red, of_red)]
    a, b, c = mixture.colour
    green, of_green = _within_range(location[1] + a * red, scale[1], own[1] + a**2 * of_red)
    # Blue is a sum of independent parts: from red, from green's own noise, and from its own.
    of_blue = own[2] + (b + c * a) ** 2 * of_red + c**2 * own[1]
    blue, of_blue = _within_range(location[2] + b * red + c * green, scale[2], of_blue)
    return [(red, of_red), (green, of_green), (blue, of_blue)]


def _within_range(location: Array, scale: Array, variance: Array) -> tuple[Array, Array]:
    """Returns mean and variance of a logistic variable that is clipped to [-1, 1].

    The mean is 1 - the integral of the distribution function from -1 to 1. The variance is no
    larger than the range allows with this mean (Bhatia and Davis 2000), and no smaller than that of
    the narrowest scale: far outside the range it would be zero, or negative by rounding.
    """
    above, below = (jax.nn.softplus((end - location) / scale) for end in (1.0, -1.0))
    mean = 1.0 - scale * (above - below)
    return mean, jnp.maximum(jnp.minimum(variance, 1.0 - mean**2), _NARROWEST)


def _in_strips(function: Callable, pixels: MixturePixels, *images: Images) -> PyTree[Array]:
    """Computes `function(pixels, *images)`, arrays [batch, row, ...], one strip of rows at a time.

    Strips are recomputed for their gradient, so that the mixtures of only one strip are in memory
    at a time. A small picture is one strip and nothing is computed twice.
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
