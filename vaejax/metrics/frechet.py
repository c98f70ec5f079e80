"""The thumbnail Fréchet distance between two sets of pictures.

It compares means and covariances of 8×8 thumbnails. That detects wrong colours, poses,
lighting and lack of variety, needs no network, and ignores details. It is reported
times 1000 and under its own name; it is not the FID of Inception features.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Num


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


def frechet_distance(
    features_a: Num[Array | np.ndarray, "count_a feature"],
    features_b: Num[Array | np.ndarray, "count_b feature"],
) -> float:
    """Computes the squared 2-Wasserstein distance of Gaussians with the two sets' moments.

    `|m_a - m_b|² + tr(S_a + S_b - 2 (S_a^½ S_b S_a^½)^½)`, Dowson and Landau (1982), eq. 4, with
    unbiased (N - 1) covariances, in float64. Fewer pictures than features are allowed, but bias
    the distance upwards: compare only sets of equal counts.

    Raises:
      ValueError: a set has fewer than two members.
    """
    mean_a, covariance_a = _moments(features_a)
    mean_b, covariance_b = _moments(features_b)
    # The trace of the root is the sum of the singular values of S_a^½ S_b^½. Computed this way, no
    # root of a rounding error is taken, as it would be with the eigenvalues of a rank-deficient
    # S_a^½ S_b S_a^½, and nothing is ever complex.
    product = _symmetric_root(covariance_a) @ _symmetric_root(covariance_b)
    overlap = np.linalg.svd(product, compute_uv=False).sum()
    spread = np.trace(covariance_a) + np.trace(covariance_b) - 2 * overlap
    return max(0.0, float(np.sum((mean_a - mean_b) ** 2) + spread))


def _block_means(side: int, size: int) -> Float[np.ndarray, "size side"]:
    """Returns the matrix that averages `side` pixels into `size` blocks of equal length."""
    edges = np.arange(size + 1) * (side / size)
    pixels = np.arange(side)
    low = np.maximum(edges[:-1, None], pixels[None])
    high = np.minimum(edges[1:, None], pixels[None] + 1)
    return (np.maximum(high - low, 0) * (size / side)).astype(np.float32)


def _moments(features):
    """Returns mean and unbiased covariance in float64."""
    features = np.asarray(features, np.float64)
    if len(features) < 2:
        raise ValueError(f"a Fréchet distance needs two pictures in each set, got {len(features)}")
    mean = features.mean(axis=0)
    centred = features - mean[None]
    return mean, centred.T @ centred / (len(features) - 1)


def _symmetric_root(covariance):
    """Returns the positive semi-definite square root."""
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(np.maximum(values, 0))[None]) @ vectors.T
