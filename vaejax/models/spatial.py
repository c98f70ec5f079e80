"""The encoder and the decoder of a VAE whose latents are a map.

Each position of the map describes a square of the picture, as in the autoencoders of latent
diffusion models (Rombach et al. 2022, section 3.1). The networks are those of `conv.py` without
their fully connected layers. Codes are flat, row by row, so that whatever takes one vector z takes
a map as well.
"""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from vaejax.models.blocks import Conv1x1, Conv3x3, Maps
from vaejax.models.conv import as_posterior, downsampled, upsampled


class SpatialEncoder(nn.Module):
    """Maps pictures to the mean and the log standard deviation of q(z|x).

    Attributes:
      channels: channels of the map of latents.
      widths, blocks, patch, dtype: as in `ConvEncoder`.
    """

    channels: int
    widths: tuple[int, ...]
    blocks: tuple[int, ...]
    patch: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(
        self, images: Maps
    ) -> tuple[Float[Array, "batch latent"], Float[Array, "batch latent"]]:
        """Maps pictures on the scale of `likelihoods.to_unit` to float32 (mean, log_std).

        Both are flat: [batch, rows * columns * channels]. Where the size of a position does not
        divide the picture, its border is repeated.
        """
        x = downsampled(images, self.widths, self.blocks, self.patch, self.dtype)
        mean, log_std = as_posterior(Conv1x1(2 * self.channels, self.dtype)(x))
        return mean.reshape(len(mean), -1), log_std.reshape(len(mean), -1)


class SpatialDecoder(nn.Module):
    """Maps codes z to values for each pixel; the mirror image of `SpatialEncoder`.

    Attributes:
      latent_shape: rows, columns and channels of the map of latents.
      image_shape, widths, blocks, patch, dtype: as in `ConvDecoder`.
    """

    latent_shape: tuple[int, int, int]
    image_shape: tuple[int, int, int]
    widths: tuple[int, ...]
    blocks: tuple[int, ...]
    patch: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, z: Float[Array, "batch latent"]) -> Maps:
        """Maps flat codes to `[batch, *image_shape]`, float32."""
        x = z.reshape(len(z), *self.latent_shape)
        x = Conv3x3(self.widths[-1], self.dtype)(x)
        shape = (self.image_shape, self.widths, self.blocks, self.patch, self.dtype)
        return upsampled(x, *shape)
