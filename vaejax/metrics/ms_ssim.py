"""MS-SSIM: structural similarity at several scales."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from vaejax.metrics.image import Images

WINDOW = 11
_SIGMA = 1.5
# Exponents of the five scales, finest first: Wang, Simoncelli and Bovik (2003), section 4.
_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
# (K1 L)² and (K2 L)², with K1 = 0.01, K2 = 0.03 and the range L = 255.
_C1 = (0.01 * 255) ** 2
_C2 = (0.03 * 255) ** 2


@jax.jit
def ms_ssim(a: Images, b: Images) -> Float[Array, "batch"]:
    """Computes the multi-scale similarity of each pair of pictures 0..255; 1 for equal pictures.

    Wang, Simoncelli and Bovik, "Multi-scale structural similarity for image quality assessment"
    (Asilomar 2003), eq. 7: contrast and structure of each scale, and luminance of the coarsest,
    in a Gaussian 11×11 window (σ = 1.5) averaged over the windows that lie wholly inside the
    picture. Means of 2×2 pixels lead to the next scale; an odd side first repeats its last pixel.
    As in TensorFlow's `ssim_multiscale`, a scale's mean counts as 0 if it is negative, and
    channels are averaged last.

    The paper's five scales need sides of at least 161 pixels. Smaller pictures have only those
    finest scales that hold a whole window, whose weights are divided by their sum: four scales
    from 81 pixels, three from 41, two from 21. One scale is the SSIM of Wang et al. (2004) in
    its Gaussian window. Compare only numbers of equal `ms_ssim_protocol`.

    Raises:
      ValueError: a side is shorter than the window.
    """
    weights = _weights(*a.shape[1:3])
    x, y = a.astype(jnp.float32), b.astype(jnp.float32)
    product: Array = jnp.ones((), jnp.float32)
    for scale, weight in enumerate(weights):
        coarsest = scale == len(weights) - 1
        similarity = _similarity(x, y, with_luminance=coarsest)
        product = product * jnp.maximum(similarity, 0) ** weight
        if not coarsest:
            x, y = _halved(x), _halved(y)
    return product.mean(axis=-1)


def ms_ssim_protocol(height: int, width: int) -> dict[str, str | int | float]:
    """Describes what `ms_ssim` computes for pictures of this size in pixels.

    Raises:
      ValueError: a side is shorter than the window.
    """
    weights = _weights(height, width)
    return {
        "scales": len(weights),
        "weights": ", ".join(f"{weight:.4f}" for weight in weights),
        "window": f"Gaussian {WINDOW}×{WINDOW}, σ {_SIGMA}",
        "downsampling": "2×2 means",
    }


def _weights(height: int, width: int) -> list[float]:
    """Returns the weights of the scales whose pictures hold a whole window; their sum is 1."""
    side = min(height, width)
    if side < WINDOW:
        raise ValueError(f"MS-SSIM needs at least {WINDOW}×{WINDOW} pixels, got {height}×{width}")
    weights: list[float] = []
    while side >= WINDOW and len(weights) < len(_WEIGHTS):
        weights.append(_WEIGHTS[len(weights)])
        side = (side + 1) // 2
    return [weight / sum(weights) for weight in weights]


def _similarity(x, y, *, with_luminance: bool):
    """Means over windows of contrast times structure, `[batch, channel]`."""
    # Squares about mid-grey are smaller, so that float32 rounds their differences less.
    x, y = x - 128, y - 128
    mean_x, mean_y = _blurred(x), _blurred(y)
    variances = _blurred(x * x + y * y) - mean_x**2 - mean_y**2
    covariance = _blurred(x * y) - mean_x * mean_y
    similarity = (2 * covariance + _C2) / (variances + _C2)
    if with_luminance:
        mean_x, mean_y = mean_x + 128, mean_y + 128
        similarity *= (2 * mean_x * mean_y + _C1) / (mean_x**2 + mean_y**2 + _C1)
    return similarity.mean(axis=(1, 2))


def _blurred(x):
    """Weighs every window inside the picture by the Gaussian."""
    rows, columns = (jnp.asarray(_windows(side)) for side in x.shape[1:3])
    return jnp.einsum("ih,bhwc,jw->bijc", rows, x, columns, precision=lax.Precision.HIGHEST)


def _windows(side: int) -> Float[np.ndarray, "windows side"]:
    """Returns the matrix whose row i weighs the pixels i to i + 10."""
    weights = np.exp(-0.5 * ((np.arange(WINDOW) - WINDOW // 2) / _SIGMA) ** 2)
    weights /= weights.sum()
    first = np.arange(side - WINDOW + 1)
    matrix = np.zeros((len(first), side), np.float32)
    for place, weight in enumerate(weights):
        matrix[first, first + place] = weight
    return matrix


def _halved(x):
    """Means of 2×2 pixels; an odd side first repeats its last pixel."""
    odd = [(0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2), (0, 0)]
    x = jnp.pad(x, odd, mode="edge")
    return lax.reduce_window(x, 0.0, lax.add, (1, 2, 2, 1), (1, 2, 2, 1), "VALID") / 4
