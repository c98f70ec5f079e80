"""The Fréchet distance between two sets of pictures, and the thumbnails it compares first.

The distance of 8×8 thumbnails detects wrong colours, poses, lighting and lack of variety, needs no
network, and ignores details. It is reported times 1000 and under its own name; it is not the FID of
Inception features.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Num

from vaejax.metrics.bootstrap import jackknife
from vaejax.metrics.moments import Moments


@functools.partial(jax.jit, static_argnames="size")
def thumbnail_features(
    images: Num[Array | np.ndarray, "batch height width channel"], size: int = 8
) -> Float[Array, "batch feature"]:
    """Computes block means of pictures 0..255 on a `size` × `size` grid, in [0, 1], flattened.

    A pixel that straddles blocks counts in each by the share of its area there, so pictures may
    have any size. An RGB picture gives size · size · 3 features.
    """
    height, width = images.shape[1:3]
    blocks = jnp.einsum(
        "ih,bhwc,jw->bijc",
        jnp.asarray(_block_means(height, size)),
        images.astype(jnp.float32) / 255,
        jnp.asarray(_block_means(width, size)),
        precision=lax.Precision.HIGHEST,
    )
    return blocks.reshape(images.shape[0], -1)


class FrechetEstimate(NamedTuple):
    """A Fréchet distance and what it would be with other pictures, or with very many.

    Attributes:
      distance: the distance.
      std: its standard deviation over other draws of both sets, by the jackknife.
      corrected: the distance minus its bias, of order 1 / N, by the jackknife; slightly negative at
        times.
    """

    distance: float
    std: float
    corrected: float


def frechet_distance(
    features_a: Num[Array | np.ndarray, "count_a feature"],
    features_b: Num[Array | np.ndarray, "count_b feature"],
) -> float:
    """Computes the Fréchet distance of two sets of rows: `gaussian_distance` of their moments.

    Fewer pictures than features are allowed, but bias the distance upwards: compare only sets of
    equal counts.

    Raises:
      ValueError: a set has fewer than two members, or a value is not finite.
    """
    a, b = (Moments.empty(rows.shape[1], groups=1).add(rows) for rows in (features_a, features_b))
    return gaussian_distance(a.mean(), a.covariance(), b.mean(), b.covariance())


def gaussian_distance(
    mean_a: Float[np.ndarray, "feature"],
    covariance_a: Float[np.ndarray, "feature feature"],
    mean_b: Float[np.ndarray, "feature"],
    covariance_b: Float[np.ndarray, "feature feature"],
) -> float:
    """Computes the squared 2-Wasserstein distance of two Gaussians, in float64.

    `|m_a - m_b|² + tr(S_a + S_b - 2 (S_a^½ S_b S_a^½)^½)`, Dowson and Landau (1982), eq. 4. The
    covariances may be singular.
    """
    return _distance(mean_a, _factor(covariance_a), mean_b, _factor(covariance_b))


def frechet_estimate(a: Moments, b: Moments) -> FrechetEstimate:
    """Computes the Fréchet distance of two sets, its standard deviation and its bias.

    One group of one set is left out at a time. Each takes the eigenvalues of a matrix as large as
    the features, or the pictures where these are fewer: seconds for 2,048 features, where ten
    groups suffice.

    On means of 4×4 blocks of CelebA faces (48 features, 300 and 1,000 pictures in 10 to 50 groups)
    `std` was 0.9 to 1.4 times the deviation over 100 draws, where a bootstrap of the groups gave
    0.9 to 2.3 times: it is too high where most of the distance is bias. Of equal distributions,
    the mean distance times 1000 was 52 with 300 pictures, and the mean of `corrected` 1.4.

    Raises:
      ValueError: a set has rows in fewer than two groups, or fewer than two rows outside a group.
    """
    whole_a, whole_b = _gaussian(a), _gaussian(b)
    distance = _distance(*whole_a, *whole_b)
    without_a = np.array([_distance_to(*whole_b, *part) for part in _without_each_group(a)])
    without_b = np.array([_distance_to(*whole_a, *part) for part in _without_each_group(b)])
    std, bias = jackknife(distance, without_a, without_b)
    return FrechetEstimate(distance, std, distance - bias)


def _block_means(side: int, size: int) -> Float[np.ndarray, "size side"]:
    """Returns the matrix that averages `side` pixels into `size` blocks of equal length."""
    edges = np.arange(size + 1) * (side / size)
    pixels = np.arange(side)
    low = np.maximum(edges[:-1, None], pixels[None])
    high = np.minimum(edges[1:, None], pixels[None] + 1)
    return (np.maximum(high - low, 0) * (size / side)).astype(np.float32)


def _without_each_group(moments):
    """Yields mean and covariance of the rows outside each group that has rows."""
    for group in np.flatnonzero(moments.counts):
        weights = np.ones(len(moments.counts))
        weights[group] = 0
        yield moments.mean(weights), moments.covariance(weights)


def _gaussian(moments):
    return moments.mean(), _factor(moments.covariance())


def _factor(covariance):
    """Returns L [feature, rank] with L Lᵀ = `covariance`, without directions of no variance."""
    values, vectors = np.linalg.eigh(covariance)
    # Rounding leaves eigenvalues of this size, as in `numpy.linalg.matrix_rank`. Their roots would
    # not be small.
    kept = values > values[-1] * len(values) * np.finfo(np.float64).eps
    return vectors[:, kept] * np.sqrt(values[kept])[None]


def _distance(mean_a, factor_a, mean_b, factor_b):
    """Computes the distance from means and factors of the covariances."""
    # The trace of the root is the sum of the singular values of L_aᵀ L_b. Computed this way, no
    # root of a rounding error is taken, as it would be with the eigenvalues of a rank-deficient
    # S_a^½ S_b S_a^½, and nothing is ever complex.
    overlap = np.linalg.svd(factor_a.T @ factor_b, compute_uv=False).sum()
    spread = np.sum(factor_a**2) + np.sum(factor_b**2) - 2 * overlap
    return max(0.0, float(np.sum((mean_a - mean_b) ** 2) + spread))


def _distance_to(mean, factor, other_mean, other_covariance):
    """Computes the distance from one factor of a covariance, and the other covariance itself.

    The squared singular values of L_aᵀ L_b are the eigenvalues of L_aᵀ S_b L_a. They cost a third
    of `_factor` and `_distance`; a singular value below 1e-8 of the largest is lost to rounding.
    """
    values = np.linalg.eigvalsh(factor.T @ other_covariance @ factor)
    overlap = np.sqrt(np.maximum(values, 0)).sum()
    spread = np.sum(factor**2) + np.trace(other_covariance) - 2 * overlap
    return max(0.0, float(np.sum((mean - other_mean) ** 2) + spread))
