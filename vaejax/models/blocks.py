"""What the convolutional networks share: sub-pixel resampling and the residual block."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

Maps = Float[Array, "batch height width channel"]
# The same after a change of size or width.
OtherMaps = Float[Array, "batch rows columns features"]
activation: Callable[[Array], Array] = jax.nn.silu


def space_to_depth(x: Maps, block: int) -> OtherMaps:
    """Each block x block square of positions becomes one position with all their channels."""
    b, h, w, c = x.shape
    x = x.reshape(b, h // block, block, w // block, block, c)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(b, h // block, w // block, block * block * c)


def depth_to_space(x: Maps, block: int) -> OtherMaps:
    """The inverse of `space_to_depth` (sub-pixel shuffle, Shi et al. 2016)."""
    b, h, w, c = x.shape
    x = x.reshape(b, h, w, block, block, c // (block * block))
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(b, h * block, w * block, c // (block * block))


class Conv3x3(nn.Module):
    """A 3 x 3 convolution with stride 1 that keeps the size."""

    features: int
    dtype: jnp.dtype
    kernel_init: Callable = nn.initializers.variance_scaling(1.0, "fan_in", "normal")

    @nn.compact
    def __call__(self, x: Maps) -> OtherMaps:
        """Returns [batch, height, width, features]."""
        return nn.Conv(
            self.features, (3, 3), padding="SAME", dtype=self.dtype, kernel_init=self.kernel_init
        )(x)


class Conv1x1(nn.Module):
    """A linear map of the channels at every position."""

    features: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Maps) -> OtherMaps:
        """Returns [batch, height, width, features]."""
        return nn.Conv(self.features, (1, 1), dtype=self.dtype)(x)


class ResidualBlock(nn.Module):
    """x + two convolutions, without normalisation.

    The second convolution starts at zero, so that a fresh network is as shallow as its
    resampling and a deep one starts as well as a flat one (Zhang et al. 2019, Fixup).
    """

    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Maps) -> Maps:
        """Returns an array like `x`."""
        width = x.shape[-1]
        h = Conv3x3(width, self.dtype)(activation(x))
        return x + Conv3x3(width, self.dtype, nn.initializers.zeros)(activation(h))
