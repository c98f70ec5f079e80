"""Building blocks of the convolutional networks: resampling, convolutions, the residual block."""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PRNGKeyArray

from vaejax.models.noise import normal_in_a_row

Maps = Float[Array, "batch height width channel"]
# Feature maps whose size or number of channels has changed.
OtherMaps = Float[Array, "batch rows columns features"]
activation: Callable[[Array], Array] = jax.nn.silu


def space_to_depth(x: Maps, block: int) -> OtherMaps:
    """Merges each block x block square of positions into one position with all their channels.

    Height and width must be multiples of `block`.
    """
    b, h, w, c = x.shape
    x = x.reshape(b, h // block, block, w // block, block, c)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(b, h // block, w // block, block * block * c)


def depth_to_space(x: Maps, block: int) -> OtherMaps:
    """Undoes `space_to_depth` (sub-pixel shuffle, Shi et al. 2016)."""
    b, h, w, c = x.shape
    x = x.reshape(b, h, w, block, block, c // (block * block))
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(b, h * block, w * block, c // (block * block))


def merged(x: Maps, block: int) -> OtherMaps:
    """Merges squares of positions; the border is repeated where they do not divide the map."""
    rows, columns = (-side % block for side in x.shape[1:3])
    padding = ((0, 0), (0, rows), (0, columns), (0, 0))
    return space_to_depth(jnp.pad(x, padding, mode="edge"), block)


def kernel_init(gain: float = 1.0) -> Callable[..., Array]:
    """Returns an initialiser of normal weights with standard deviation gain / sqrt(fan_in).

    Outputs are then `gain` times as large as their inputs, if these are independent (LeCun 1998).
    """
    return functools.partial(_normal_of_fan_in, gain)


def _normal_of_fan_in(
    gain: float, key: PRNGKeyArray, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32
) -> Array:
    scale = gain / math.sqrt(math.prod(shape[:-1]))
    return (scale * normal_in_a_row(key, shape)).astype(dtype)


@jax.custom_vjp
def conv3x3(x: Maps, kernel: Float[Array, "3 3 channel features"]) -> OtherMaps:
    """Convolves `x` with a 3 x 3 kernel, stride 1 and zero padding; keeps the size.

    The gradients are written by hand. XLA's CPU compiler converts convolutions to the layout in
    which it is fast (batch, rows, columns, channels, with channels innermost) only outside loops:
    in a scan the gradients that it derives take fifty times as long.
    """
    return _convolve(x, kernel, "SAME")


def _convolve(x: Array, kernel: Array, padding: str | list[tuple[int, int]]) -> Array:
    names = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=names)


def _conv3x3_forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return conv3x3(x, kernel), (x, kernel)


def _conv3x3_backward(saved: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    x, kernel = saved
    # The gradient of `x` is a convolution with the mirrored kernel.
    of_x = _convolve(gradient, kernel[::-1, ::-1].swapaxes(2, 3), "SAME")
    # A weight's gradient sums over all pictures and positions. As a convolution: the channels of
    # `x` are the batch, the pictures are the channels, and `gradient` is a kernel as large as the
    # feature map.
    of_kernel = _convolve(x.transpose(3, 1, 2, 0), gradient.transpose(1, 2, 0, 3), [(1, 1), (1, 1)])
    return of_x, of_kernel.transpose(1, 2, 0, 3)


conv3x3.defvjp(_conv3x3_forward, _conv3x3_backward)


class Conv3x3(nn.Module):
    """A 3 x 3 convolution with stride 1, zero padding and a bias.

    Attributes:
      features: output channels.
      dtype: dtype of the activations; parameters are float32.
      kernel_init: initialiser of the kernel.
    """

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
    """A 1 x 1 convolution: the same linear map of the channels at every position, with a bias.

    Attributes:
      features: output channels.
      dtype: dtype of the activations; parameters are float32.
      gain: factor of the initial weights, see `kernel_init`.
    """

    features: int
    dtype: jnp.dtype
    gain: float = 1.0

    @nn.compact
    def __call__(self, x: Maps) -> OtherMaps:
        """Returns [batch, height, width, features]."""
        # One matrix product, because XLA's CPU compiler turns the gradient of a 1 x 1 convolution
        # into a convolution of transposed maps. The barrier makes XLA compute the input, which
        # resampling may have permuted, once and not again in each product. Together they save 5% of
        # a step.
        flat = jax.lax.optimization_barrier(x).reshape(-1, x.shape[-1])
        out = nn.Dense(self.features, dtype=self.dtype, kernel_init=kernel_init(self.gain))(flat)
        return out.reshape(*x.shape[:-1], self.features)


class ResidualBlock(nn.Module):
    """x plus two activated 3 x 3 convolutions of it, without normalisation.

    The second convolution starts at zero, so that at initialisation every block is the identity
    and a deep network starts as well as a shallow one (Zhang et al. 2019, Fixup).

    Attributes:
      dtype: dtype of the activations.
    """

    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Maps) -> Maps:
        """Returns an array of the shape of `x`."""
        width = x.shape[-1]
        h = Conv3x3(width, self.dtype)(activation(x))
        return x + Conv3x3(width, self.dtype, nn.initializers.zeros)(activation(h))
