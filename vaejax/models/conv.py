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
    ResidualBlock,
    activation,
    depth_to_space,
    kernel_init,
    space_to_depth,
)


def lowest_size(size: int, patch: int, levels: int) -> int:
    """The number of positions of the coarsest level that cover `size` pixels.

    Args:
      size: height or width of a picture, pixels.
      patch: pixels along one side of a position of the finest level.
      levels: number of levels, each half as high and wide as the one before.
    """
    return math.ceil(size / (patch * 2 ** (levels - 1)))


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
        _, height, width, _ = images.shape
        levels = len(self.widths)
        unit = self.patch * 2 ** (levels - 1)
        rows = lowest_size(height, self.patch, levels) * unit - height
        columns = lowest_size(width, self.patch, levels) * unit - width
        # Pad by repeating the border; zeros would look like a grey edge.
        x = jnp.pad(images, ((0, 0), (0, rows), (0, columns), (0, 0)), mode="edge")
        x = x.astype(self.dtype)
        for level, (features, count) in enumerate(zip(self.widths, self.blocks)):
            x = space_to_depth(x, self.patch if level == 0 else 2)
            x = Conv1x1(features, self.dtype)(x)
            for _ in range(count):
                x = ResidualBlock(self.dtype)(x)
        x = activation(x).reshape(x.shape[0], -1)
        x = nn.Dense(2 * self.latent_size, dtype=self.dtype, kernel_init=kernel_init())(x)
        mean, raw = jnp.split(x.astype(jnp.float32), 2, axis=-1)
        # log_std is bounded, so that no update can make exp() overflow; it is linear around zero.
        return mean, 8.0 * jnp.tanh((raw - 1.0) / 8.0)


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
        """Maps codes to [batch, *image_shape], float32."""
        height, width, values = self.image_shape
        levels = len(self.widths)
        bottom = tuple(lowest_size(side, self.patch, levels) for side in (height, width))
        size = bottom[0] * bottom[1] * self.widths[-1]
        x = nn.Dense(size, dtype=self.dtype, kernel_init=kernel_init())(z)
        x = x.reshape(z.shape[0], *bottom, self.widths[-1])
        for level in reversed(range(levels)):
            for _ in range(self.blocks[level]):
                x = ResidualBlock(self.dtype)(x)
            if level > 0:
                x = depth_to_space(Conv1x1(4 * self.widths[level - 1], self.dtype)(x), 2)
        # Small initial weights: the first pictures are grey instead of noisy.
        x = Conv3x3(self.patch**2 * values, self.dtype, kernel_init(0.1))(activation(x))
        return depth_to_space(x, self.patch)[:, :height, :width].astype(jnp.float32)
