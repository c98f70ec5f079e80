"""Output heads, which map a decoder's last features to the parameters of a likelihood."""

import math

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from vaejax.likelihoods import LEVEL, MixturePixels, Pixels, bound_log_scale
from vaejax.likelihoods.mixture import first_bias, parameters_per_pixel
from vaejax.models.blocks import activation, kernel_init

# A learned scale starts at a sixth of the range of values, wide enough for any first guess.
FIRST_LOG_SCALE = math.log(1 / 3)
# Gain of the learned log-scale. A scale must shrink twenty-fold, while Adam moves a parameter by
# about its learning rate in each step: without this gain a short run ends with the KL term still
# weighted many times too heavily.
LOG_SCALE_GAIN = 10.0


class PixelHead(nn.Module):
    """Maps the decoder's output to a location and a log-scale for each value.

    Attributes:
      channels: channels of the pictures, 1 or 3.
      scale: shared | position | predicted | fixed, as in `LocationScaleConfig`.
      fixed_scale: the scale in grey levels of 255, if `scale` is `fixed`.
    """

    channels: int
    scale: str
    fixed_scale: float = 1.0

    def inputs(self) -> int:
        """The number of values that the decoder must give for each pixel."""
        return self.channels * (2 if self.scale == "predicted" else 1)

    @nn.compact
    def __call__(self, values: Float[Array, "batch height width value"]) -> Pixels:
        """Returns the location and the log-scale of each value; learned log-scales are bounded."""
        _, height, width, count = values.shape
        if self.scale == "predicted":
            location, log_scale = jnp.split(values, 2, axis=-1)
            return Pixels(location, bound_log_scale(log_scale + FIRST_LOG_SCALE))
        if self.scale == "fixed":
            log_scale = jnp.full((1, 1, 1, 1), math.log(self.fixed_scale * LEVEL), jnp.float32)
            return Pixels(values, log_scale)
        shape = (1, 1, 1, count) if self.scale == "shared" else (1, height, width, count)
        raw = self.param("log_scale", nn.initializers.zeros, shape, jnp.float32)
        return Pixels(values, bound_log_scale(LOG_SCALE_GAIN * raw + FIRST_LOG_SCALE))


class MixtureHead(nn.Module):
    """Holds the linear map from each pixel's features to the parameters of its mixture.

    The likelihood applies the map (`MixtureOfLogistics.components`), a strip of rows at a time,
    because the parameters of whole pictures would take too much memory.

    Attributes:
      channels: channels of the pictures, 1 or 3.
      components: number of components of a pixel's mixture.
      features: number of the decoder's features for each pixel, the map's input size.
    """

    channels: int
    components: int
    features: int

    def inputs(self) -> int:
        """The number of values that the decoder must give for each pixel."""
        return self.features

    @nn.compact
    def __call__(self, values: Float[Array, "batch height width value"]) -> MixturePixels:
        """Returns the activated features with the kernel and the bias of the linear map."""
        count = parameters_per_pixel(self.channels, self.components)
        # Small initial weights: all pixels start alike, with the components where `first_bias`
        # puts them.
        kernel = self.param("kernel", kernel_init(0.1), (self.features, count), jnp.float32)
        bias = self.param("bias", lambda _: first_bias(self.channels, self.components))
        return MixturePixels(activation(values), kernel, bias)
