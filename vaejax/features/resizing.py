"""The three resizes to 299×299 pixels by which FIDs differ, each as a product with two matrices.

Parmar, Zhang and Zhu, "On aliased resizing and surprising subtleties in GAN evaluation" (CVPR
2022) show how much the FID depends on this step. None of the three rounds to whole grey levels.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Num

SIDE = 299
"""Height and width in pixels of the pictures that the Inception network sees."""


class Resize(NamedTuple):
    """One way to resize to 299×299.

    Attributes:
      description: what readers must know of it.
      matrix: maps the number of pixels of a row or column to the matrix `[299, pixels]` by which
        it is multiplied.
    """

    description: str
    matrix: Callable[[int], Float[np.ndarray, "299 pixels"]]


def resize(
    pictures: Num[Array | np.ndarray, "batch height width channel"], kernel: str
) -> Float[Array, "batch 299 299 channel"]:
    """Resizes pictures of any size to 299×299.

    Args:
      pictures: values 0..255.
      kernel: a name in `RESIZES`.

    Returns:
      Values 0..255, clipped (bicubic interpolation exceeds the range) but not rounded.
    """
    matrix = RESIZES[kernel].matrix
    height, width = pictures.shape[1:3]
    resized = jnp.einsum(
        "ih,bhwc,jw->bijc",
        jnp.asarray(matrix(height)),
        pictures.astype(jnp.float32),
        jnp.asarray(matrix(width)),
        precision=lax.Precision.HIGHEST,
    )
    return jnp.clip(resized, 0, 255)


def _tensorflow_bilinear(pixels: int) -> Float[np.ndarray, "299 pixels"]:
    """Bilinear interpolation of TensorFlow 1, where pixel i of the result is at i · pixels / 299.

    So the picture is shifted by up to half a pixel, and its last rows repeat (`ResizeBilinear`
    without `half_pixel_centers`).
    """
    return _linear(_steps() * np.float32(pixels / SIDE), pixels)


def _half_pixel_bilinear(pixels: int) -> Float[np.ndarray, "299 pixels"]:
    """Bilinear interpolation of `torch.nn.functional.interpolate`, between centres of pixels.

    The matrix is that of `align_corners=False, antialias=False`: a large picture is sampled
    without being smoothed first.
    """
    return _linear((_steps() + 0.5) * np.float32(pixels / SIDE) - 0.5, pixels)


def _pillow_bicubic(pixels: int) -> Float[np.ndarray, "299 pixels"]:
    """Bicubic interpolation of Pillow (a = -1/2), which smooths a picture that it makes smaller."""
    scale = pixels / SIDE
    centres = (np.arange(SIDE) + 0.5) * scale
    # The kernel is as wide as four pixels of the smaller of the two grids' resolutions.
    distance = (np.arange(pixels)[None] + 0.5 - centres[:, None]) / max(scale, 1)
    weights = _cubic(np.abs(distance))
    # Beyond the picture's edge there are no pixels, so the rest have more weight.
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def _steps() -> Float[np.ndarray, "299"]:
    # Positions are computed in float32, as both libraries do.
    return np.arange(SIDE, dtype=np.float32)


def _linear(positions: Float[np.ndarray, "299"], pixels: int) -> Float[np.ndarray, "299 pixels"]:
    """Returns weights of the two pixels beside each position; edge pixels extend outwards."""
    positions = np.clip(positions, 0, pixels - 1)
    distance = np.abs(np.arange(pixels, dtype=np.float32)[None] - positions[:, None])
    return np.maximum(1 - distance, 0)


def _cubic(x: Float[np.ndarray, "299 pixels"]) -> Float[np.ndarray, "299 pixels"]:
    """Keys, "Cubic convolution interpolation" (1981), eq. 15, at distances x ≥ 0."""
    near = (1.5 * x - 2.5) * x**2 + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0))


RESIZES = {
    "tf": Resize("bilinear of TensorFlow 1, without half-pixel centres", _tensorflow_bilinear),
    "pytorch": Resize("bilinear between pixel centres, without antialiasing", _half_pixel_bilinear),
    "clean": Resize("bicubic of Pillow with antialiasing, not rounded", _pillow_bicubic),
}
"""The resizes by the name of the protocol that uses them."""
