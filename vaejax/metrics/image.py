"""PSNR and SSIM of pictures against their originals."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Num

_RANGE = 255.0
_WINDOW = 7
# (K1 L)² and (K2 L)² of Wang et al., with K1 = 0.01 and K2 = 0.03.
_C1 = (0.01 * _RANGE) ** 2
_C2 = (0.03 * _RANGE) ** 2

Images = Num[Array | np.ndarray, "batch height width channel"]


@jax.jit
def psnr(a: Images, b: Images) -> Float[Array, "batch"]:
    """Computes the peak signal-to-noise ratio, in dB, of each pair of pictures 0..255.

    It is 10 log10(255² / MSE), with the mean over pixels and channels; infinite for equal pictures.
    """
    error = a.astype(jnp.float32) - b.astype(jnp.float32)
    return 10 * jnp.log10(_RANGE**2 / jnp.mean(error**2, axis=(1, 2, 3)))


@jax.jit
def ssim(a: Images, b: Images) -> Float[Array, "batch"]:
    """Computes the structural similarity of each pair of pictures 0..255; 1 for equal pictures.

    Wang, Bovik, Sheikh and Simoncelli, "Image quality assessment" (IEEE TIP 2004), eq. 13, in
    a uniform 7×7 window with sample (N - 1) variances, averaged over the windows that lie
    wholly inside the picture and over channels. These are the defaults of scikit-image's
    `structural_similarity`; the paper's Gaussian window gives other numbers.

    Raises:
      ValueError: a side is shorter than the window.
    """
    if min(a.shape[1:3]) < _WINDOW:
        raise ValueError(f"SSIM needs at least {_WINDOW}×{_WINDOW} pixels, got {a.shape[1:3]}")
    # Centred on mid-grey, a window's sums of uint8 values, squares and products are integers
    # below 2^24, which float32 represents exactly. Only the differences below are rounded.
    x = a.astype(jnp.float32) - 128
    y = b.astype(jnp.float32) - 128
    count = _WINDOW**2
    sum_x, sum_y = _window_sum(x), _window_sum(y)
    var_x = (_window_sum(x * x) - sum_x * sum_x / count) / (count - 1)
    var_y = (_window_sum(y * y) - sum_y * sum_y / count) / (count - 1)
    cov = (_window_sum(x * y) - sum_x * sum_y / count) / (count - 1)
    mean_x, mean_y = sum_x / count + 128, sum_y / count + 128
    luminance = (2 * mean_x * mean_y + _C1) / (mean_x**2 + mean_y**2 + _C1)
    structure = (2 * cov + _C2) / (var_x + var_y + _C2)
    return jnp.mean(luminance * structure, axis=(1, 2, 3))


def _window_sum(
    x: Float[Array | np.ndarray, "batch height width channel"],
) -> Float[Array | np.ndarray, "batch rows columns channel"]:
    """Sums over all 7×7 windows inside the picture, one axis after the other."""
    for window in ((1, _WINDOW, 1, 1), (1, 1, _WINDOW, 1)):
        x = lax.reduce_window(x, 0.0, lax.add, window, (1, 1, 1, 1), "VALID")
    return x
