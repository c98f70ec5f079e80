"""The textbook network in JAX: strided convolutions down, transposed convolutions up.

Four levels of 4 x 4 kernels with stride 2, channels doubling from level to level (Radford et al.
2016, DCGAN), in place of vaejax's encoder and decoder; everything else in the step is the same. It
is as wide as equal FLOPs allow.
"""

import jax.numpy as jnp
from flax import linen as nn

from benchmarks.programs import Step, step_flops
from benchmarks.rivals import worker
from benchmarks.rivals.vaejax_step import serve_step
from vaejax.config import Config
from vaejax.models import build_model
from vaejax.models.blocks import activation
from vaejax.models.vae import VAE
from vaejax.tasks.vae import VAETask

LEVELS = 4


class Encoder(nn.Module):
    """Maps pictures to mean and log standard deviation of their codes."""

    width: int
    latent_size: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x):
        """Maps [batch, height, width, channel] to mean and log std, each [batch, latent]."""
        for level in range(LEVELS):
            conv = nn.Conv(self.width * 2**level, (4, 4), (2, 2), dtype=self.dtype)
            x = activation(conv(x.astype(self.dtype)))
        x = nn.Dense(2 * self.latent_size, dtype=self.dtype)(x.reshape(x.shape[0], -1))
        mean, log_std = jnp.split(x.astype(jnp.float32), 2, axis=-1)
        return mean, log_std


class Decoder(nn.Module):
    """Maps codes to values for each pixel, which the likelihood takes."""

    width: int
    image_shape: tuple[int, int, int]
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, z):
        """Maps [batch, latent] to [batch, *image_shape]."""
        height, width, values = self.image_shape
        bottom = (-(-height // 2**LEVELS), -(-width // 2**LEVELS))
        features = self.width * 2 ** (LEVELS - 1)
        x = nn.Dense(bottom[0] * bottom[1] * features, dtype=self.dtype)(z)
        x = x.reshape(z.shape[0], *bottom, features)
        for level in reversed(range(LEVELS)):
            out = self.width * 2 ** (level - 1) if level else values
            x = nn.ConvTranspose(out, (4, 4), (2, 2), dtype=self.dtype)(activation(x))
        return x[:, :height, :width].astype(jnp.float32)


def textbook_model(config: Config, width: int) -> VAE:
    """Returns the VAE that `config` describes, with the textbook's encoder and decoder."""
    ours = build_model(config)
    dtype = jnp.dtype(config.model.dtype)
    return ours.clone(
        encoder=Encoder(width, config.model.latent_size, dtype),
        decoder=Decoder(width, ours.decoder.image_shape, dtype),
    )


def textbook(config: Config, width: int) -> VAETask:
    """Returns the task that trains `textbook_model`."""
    return VAETask(config, textbook_model(config, width))


def equal_width(config: Config) -> int:
    """Returns the largest width at which a step takes no more FLOPs than vaejax's own."""
    most, width = step_flops(VAETask(config), config), 1
    while step_flops(textbook(config, width + 1), config) <= most:
        width += 1
    return width


if __name__ == "__main__":
    config = worker.settings({"model.name": "conv"})
    serve_step(Step(textbook(config, equal_width(config)), config))
