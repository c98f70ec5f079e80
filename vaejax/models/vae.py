"""The VAE: an encoder, a decoder with its pixel scales, and a prior, as one set of parameters."""

import math

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, PRNGKeyArray, UInt8

from vaejax.likelihoods import LEVEL, Pixels, bound_log_scale, to_unit

# A learned scale starts at a sixth of the range of values, wide enough for any first guess.
FIRST_LOG_SCALE = math.log(1 / 3)
# A scale must shrink twenty-fold while Adam moves a parameter by its learning rate each step:
# without this gain a short run ends with the KL term still weighed many times too heavily.
LOG_SCALE_GAIN = 10.0


class PixelHead(nn.Module):
    """Turns the decoder's map into locations and scales.

    Attributes:
      scale: whose scale it is, as in `LikelihoodConfig`.
      fixed_scale: in grey levels, for `fixed`.
    """

    scale: str
    fixed_scale: float

    @nn.compact
    def __call__(self, values: Float[Array, "batch height width value"]) -> Pixels:
        """Returns location and log-scale of each value."""
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


class VAE(nn.Module):
    """q(z|x), p(x|z) and p(z).

    Attributes:
      encoder: pictures to (mean, log_std).
      decoder: codes to a map of values for each pixel.
      head: that map to `Pixels`.
      prior: with `log_prob(z)` and `sample(key, count, temperature)`.
    """

    encoder: nn.Module
    decoder: nn.Module
    head: nn.Module
    prior: nn.Module

    def encode(
        self, images: UInt8[Array, "batch height width channel"]
    ) -> tuple[Float[Array, "batch latent"], Float[Array, "batch latent"]]:
        """Mean and log standard deviation of q(z|x)."""
        return self.encoder(to_unit(images))

    def decode(self, z: Float[Array, "batch latent"]) -> Pixels:
        """The distribution of every pixel given `z`."""
        return self.head(self.decoder(z))

    def log_prior(self, z: Float[Array, "batch latent"]) -> Float[Array, "batch"]:
        """log p(z) in nats."""
        return self.prior.log_prob(z)

    def sample_prior(
        self, key: PRNGKeyArray, count: int, temperature: float | Float[Array, ""] = 1.0
    ) -> Float[Array, "count latent"]:
        """Codes z ~ p(z)."""
        return self.prior.sample(key, count, temperature)

    def __call__(self, images: UInt8[Array, "batch height width channel"]) -> None:
        """Touches every parameter once; only for initialisation."""
        mean, _ = self.encode(images)
        self.log_prior(mean)
        self.decode(mean)
