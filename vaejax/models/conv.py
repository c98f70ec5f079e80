"""The convolutional encoder and decoder, sized by the shape of the pictures.

Both resample by sub-pixel convolutions (Shi et al. 2016): space-to-depth and a stride-1
convolution to downsample, a convolution and depth-to-space to upsample. These replace strided and
transposed convolutions, leave no checkerboard artefacts, and are several times faster on CPUs.
"""

import math

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from vaejax.models.blocks import (
    Conv1x1,
    Conv3x3,
    Maps,
    OtherMaps,
    ResidualBlock,
    activation,
    depth_to_space,
    kernel_init,
    space_to_depth,
)

Latents = Float[Array, "batch *latent"]


def lowest_size(size: int, patch: int, levels: int) -> int:
    """The number of positions of the coarsest level that cover `size` pixels.

    Args:
      size: height or width of a picture, pixels.
      patch: pixels along one side of a position of the finest level.
      levels: number of levels, each half as high and wide as the one before.
    """
    return math.ceil(size / (patch * 2 ** (levels - 1)))


def downsampled(
    images: Maps, widths: tuple[int, ...], blocks: tuple[int, ...], patch: int, dtype: jnp.dtype
) -> OtherMaps:
    """Maps pictures to activated features at the coarsest level; called in a compact method.

    Args:
      images: pictures on the scale of `likelihoods.to_unit`.
      widths, blocks, patch, dtype: as in `ConvEncoder`.
    """
    unit = patch * 2 ** (len(widths) - 1)
    rows, columns = (-side % unit for side in images.shape[1:3])
    # Pad by repeating the border; zeros would look like a grey edge.
    x = jnp.pad(images, ((0, 0), (0, rows), (0, columns), (0, 0)), mode="edge").astype(dtype)
    for level, (features, count) in enumerate(zip(widths, blocks)):
        x = space_to_depth(x, patch if level == 0 else 2)
        x = Conv1x1(features, dtype)(x)
        for _ in range(count):
            x = ResidualBlock(dtype)(x)
    return activation(x)


def upsampled(
    x: Maps,
    image_shape: tuple[int, int, int],
    widths: tuple[int, ...],
    blocks: tuple[int, ...],
    patch: int,
    dtype: jnp.dtype,
) -> OtherMaps:
    """Maps features at the coarsest level to `[batch, *image_shape]`, float32.

    The mirror image of `downsampled`; called in a compact method.

    Args:
      x: features, as many as `widths[-1]`.
      image_shape, widths, blocks, patch, dtype: as in `ConvDecoder`.
    """
    height, width, values = image_shape
    for level in reversed(range(len(widths))):
        for _ in range(blocks[level]):
            x = ResidualBlock(dtype)(x)
        if level > 0:
            x = depth_to_space(Conv1x1(4 * widths[level - 1], dtype)(x), 2)
    # Small initial weights: the first pictures are grey instead of noisy.
    x = Conv3x3(patch**2 * values, dtype, kernel_init(0.1))(activation(x))
    return depth_to_space(x, patch)[:, :height, :width].astype(jnp.float32)


def as_posterior(values: Float[Array, "batch *outputs"]) -> tuple[Latents, Latents]:
    """Splits the last axis of an encoder's outputs into the mean and the log_std of q(z|x)."""
    mean, raw = jnp.split(values.astype(jnp.float32), 2, axis=-1)
    # log_std is bounded, so that no update can make exp() overflow; it is linear around zero.
    return mean, 8.0 * jnp.tanh((raw - 1.0) / 8.0)


class ConvEncoder(nn.Module):
    """Maps pictures to the mean and the log standard deviation of q(z|x).

    Attributes:
      latent_size: number of dimensions of z.
      widths: channels at each resolution, finest first.
      blocks: number of residual blocks at each resolution.
      patch: side in pixels of the square that the first convolution sees as one position.
      dtype: dtype of the activations.
    """

    latent_size: int
    widths: tuple[int, ...]
    blocks: tuple[int, ...]
    patch: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(
        self, images: Maps
    ) -> tuple[Float[Array, "batch latent"], Float[Array, "batch latent"]]:
        """Maps pictures on the scale of `likelihoods.to_unit` to float32 (mean, log_std)."""
        x = downsampled(images, self.widths, self.blocks, self.patch, self.dtype)
        x = x.reshape(x.shape[0], -1)
        x = nn.Dense(2 * self.latent_size, dtype=self.dtype, kernel_init=kernel_init())(x)
        return as_posterior(x)


class ConvDecoder(nn.Module):
    """Maps codes z to values for each pixel; the mirror image of `ConvEncoder`.

    Attributes:
      image_shape: height, width and the number of values for each pixel (`head.inputs()`).
      widths, blocks, patch, dtype: as in `ConvEncoder`.
    """

    image_shape: tuple[int, int, int]
    widths: tuple[int, ...]
    blocks: tuple[int, ...]
    patch: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, z: Float[Array, "batch latent"]) -> Maps:
        """Maps codes to `[batch, *image_shape]`, float32."""
        levels = len(self.widths)
        bottom = tuple(lowest_size(side, self.patch, levels) for side in self.image_shape[:2])
        size = bottom[0] * bottom[1] * self.widths[-1]
        x = nn.Dense(size, dtype=self.dtype, kernel_init=kernel_init())(z)
        x = x.reshape(z.shape[0], *bottom, self.widths[-1])
        shape = (self.image_shape, self.widths, self.blocks, self.patch, self.dtype)
        return upsampled(x, *shape)
