"""The kernel distance between two sets of pictures: KID where the rows are Inception's features.

Bińkowski, Sutherland, Arbel and Gretton, "Demystifying MMD GANs" (ICLR 2018). Its estimator has no
bias at any number of pictures, unlike the Fréchet distance, and may be slightly negative.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float, Num

from vaejax.metrics.moments import checked_rows

# Rows whose kernel with all others is held at once.
_BLOCK = 512


class KernelDistance(NamedTuple):
    """Mean and standard deviation (divisor N) of the squared MMD over random subsets.

    The deviation is that of a single subset's distance; the error of the mean is smaller.
    """

    mean: float
    std: float


def kernel_distance(
    features_a: Num[Array | np.ndarray, "count_a feature"],
    features_b: Num[Array | np.ndarray, "count_b feature"],
    *,
    subsets: int = 100,
    size: int = 1000,
    seed: int = 2020,
) -> KernelDistance:
    """Computes the squared MMD of random subsets of two sets, and averages.

    Args:
      features_a: rows of one set.
      features_b: rows of the other set.
      subsets: number of pairs of subsets.
      size: number of rows of a subset, drawn without replacement.
      seed: seed of the draws, which are those of torch-fidelity; its default is the same.

    Raises:
      ValueError: a set has fewer than `size` rows, or a value is not finite.
    """
    a, b = checked_rows(features_a), checked_rows(features_b)
    if min(len(a), len(b)) < size:
        raise ValueError(f"subsets of {size} pictures need as many, got {len(a)} and {len(b)}")
    rng = np.random.RandomState(seed)
    distances = [
        squared_mmd(
            a[rng.choice(len(a), size, replace=False)], b[rng.choice(len(b), size, replace=False)]
        )
        for _ in range(subsets)
    ]
    return KernelDistance(float(np.mean(distances)), float(np.std(distances)))


def squared_mmd(
    features_a: Num[Array | np.ndarray, "count_a feature"],
    features_b: Num[Array | np.ndarray, "count_b feature"],
) -> float:
    """Computes the unbiased estimate of the squared maximum mean discrepancy, in float64.

    The kernel is `(x · y / features + 1)³`. Gretton et al., "A kernel two-sample test" (JMLR 2012),
    eq. 3. Time grows with the square of the counts, memory only with the counts.

    Raises:
      ValueError: a set has fewer than two members, or a value is not finite.
    """
    a, b = checked_rows(features_a), checked_rows(features_b)
    if min(len(a), len(b)) < 2:
        raise ValueError(f"an MMD needs two pictures in each set, got {len(a)} and {len(b)}")
    within_a, within_b = (
        (_kernel_sum(rows, rows) - _kernel(np.sum(rows * rows, axis=1), rows.shape[1]).sum())
        / (len(rows) * (len(rows) - 1))
        for rows in (a, b)
    )
    return float(within_a + within_b - 2 * _kernel_sum(a, b) / (len(a) * len(b)))


def _kernel_sum(
    a: Float[np.ndarray, "count_a feature"], b: Float[np.ndarray, "count_b feature"]
) -> float:
    """Sums the kernel over all pairs of a row of `a` and a row of `b`."""
    blocks = (a[start : start + _BLOCK] for start in range(0, len(a), _BLOCK))
    return float(sum(_kernel(block @ b.T, a.shape[1]).sum() for block in blocks))


def _kernel(products: np.ndarray, features: int) -> np.ndarray:
    scaled = products / features + 1
    return scaled * scaled * scaled
