"""What the convolutional networks share: sub-pixel resampling and the residual block."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PRNGKeyArray

from vaejax.models.noise import normal_in_a_row

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


def kernel_init(gain: float = 1.0) -> Callable[..., Array]:
    """Normal weights with which a sum is `gain` times as large as what it is of (LeCun 1998)."""

    def init(key: PRNGKeyArray, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> Array:
        scale = gain / math.sqrt(math.prod(shape[:-1]))
        return (scale * normal_in_a_row(key, shape)).astype(dtype)

    return init


@jax.custom_vjp
def conv3x3(x: Maps, kernel: Float[Array, "3 3 channel features"]) -> OtherMaps:
    """Each 3 x 3 neighbourhood times `kernel`, zeros beyond the border; keeps the size.

    The gradients are written out because XLA's CPU compiler only brings convolutions into the
    form it is fast at (batch, rows, columns, channels, channels innermost) outside loops: in a
    scan the gradients it derives take fifty times as long.
    """
    return _convolve(x, kernel, "SAME")


def _convolve(x: Array, kernel: Array, padding: str | list[tuple[int, int]]) -> Array:
    names = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=names)


def _conv3x3_forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return conv3x3(x, kernel), (x, kernel)


def _conv3x3_backward(saved: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    x, kernel = saved
    # Each output came from its neighbours by the kernel: back the same way, mirrored.
    of_x = _convolve(gradient, kernel[::-1, ::-1].swapaxes(2, 3), "SAME")
    # Each weight met every picture at every position: channels are the batch, pictures the
    # channels, and the gradient is a kernel as large as the map.
    of_kernel = _convolve(x.transpose(3, 1, 2, 0), gradient.transpose(1, 2, 0, 3), [(1, 1), (1, 1)])
    return of_x, of_kernel.transpose(1, 2, 0, 3)


conv3x3.defvjp(_conv3x3_forward, _conv3x3_backward)


class Conv3x3(nn.Module):
    """A 3 x 3 convolution with stride 1 and a bias."""

    features: int
    dtype: jnp.dtype
    kernel_init: Callable = kernel_init()

    @nn.compact
    def __call__(self, x: Maps) -> OtherMaps:
        """Returns [batch, height, width, features]."""
        shape = (3, 3, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        x = conv3x3(x.astype(self.dtype), kernel.astype(self.dtype))
        return x + bias.astype(self.dtype)[None, None, None]


class Conv1x1(nn.Module):
    """A linear map of the channels at every position, whose weights start times `gain`."""

    features: int
    dtype: jnp.dtype
    gain: float = 1.0

    @nn.compact
    def __call__(self, x: Maps) -> OtherMaps:
        """Returns [batch, height, width, features]."""
        # As one matrix product: XLA's CPU compiler turns the gradient of a 1 x 1 convolution into
        # a convolution of transposed maps. The barrier has what comes before, which is reshuffled
        # by resampling, computed once and not again in each product. Together 5% of a step.
        flat = jax.lax.optimization_barrier(x).reshape(-1, x.shape[-1])
        out = nn.Dense(self.features, dtype=self.dtype, kernel_init=kernel_init(self.gain))(flat)
        return out.reshape(*x.shape[:-1], self.features)


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
