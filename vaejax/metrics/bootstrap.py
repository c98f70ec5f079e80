"""Bootstrap and jackknife: how much a statistic of pictures would vary with other pictures.

Efron, "Bootstrap methods: another look at the jackknife" (Annals of Statistics, 1979). Each
replicate of the bootstrap draws as many pictures, or groups of pictures, as there are, with
replacement. A statistic sees a draw as weights: how often each picture or group was drawn.

The jackknife leaves out one group at a time. It suits statistics with a bias of order 1 / N, which
the bootstrap's repeated pictures raise, and so gives a better deviation there, and the bias itself.

Draws come from `numpy.random.RandomState`, whose stream is the same in every version of NumPy.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int64, Num


class Estimate(NamedTuple):
    """A figure and its standard deviation over other draws of pictures."""

    value: float
    std: float


def draws(
    sizes: Sequence[int], *, replicates: int, seed: int
) -> Iterator[tuple[Int64[np.ndarray, "unit"], ...]]:
    """Yields, for each replicate, one array of weights for each set.

    Args:
      sizes: number of units (pictures or groups) of each set, which is drawn independently.
      replicates: number of replicates.
      seed: seed of the draws, 0 to 2³² - 1.
    """
    rng = np.random.RandomState(seed)
    for _ in range(replicates):
        yield tuple(np.bincount(rng.randint(size, size=size), minlength=size) for size in sizes)


def bootstrap_std(
    statistic: Callable[..., float], sizes: Sequence[int], *, replicates: int = 200, seed: int = 0
) -> float:
    """Estimates the standard deviation of a statistic of one or more sets.

    Args:
      statistic: a function of one array of weights for each set.
      sizes: number of units (pictures or groups) of each set.
      replicates: number of replicates, 2 or more; 200 give the deviation to some 5 %.
      seed: seed of the draws.

    Raises:
      ValueError: there are fewer than two replicates, or a set has fewer than two units, whose
        draws would all be equal.
    """
    if replicates < 2 or min(sizes) < 2:
        raise ValueError(
            f"a bootstrap needs two replicates and two units in each set, got {replicates} and "
            f"{tuple(sizes)}"
        )
    values = [statistic(*weights) for weights in draws(sizes, replicates=replicates, seed=seed)]
    return float(np.std(values, ddof=1))


def resampled_means(
    rows: Num[Array | np.ndarray, "count feature"], *, replicates: int = 200, seed: int = 0
) -> Float[np.ndarray, "replicate feature"]:
    """Computes the mean row of every replicate, in float64, for statistics that depend on it."""
    rows = np.asarray(rows, np.float64)
    weights = draws([len(rows)], replicates=replicates, seed=seed)
    return np.stack([drawn @ rows for (drawn,) in weights]) / len(rows)


def mean_estimate(values: Num[Array | np.ndarray, "count"]) -> Estimate:
    """Returns the mean of a value of each picture, with its bootstrap standard deviation.

    Of a mean, the deviation over all possible draws is known without drawing: σ / √N, where σ is
    the values' standard deviation with divisor N (Efron 1979, section 2).
    """
    values = np.asarray(values, np.float64)
    return Estimate(float(values.mean()), float(values.std() / np.sqrt(len(values))))


def jackknife(value: float, *left_out: Float[np.ndarray, "_"]) -> tuple[float, float]:
    """Estimates standard deviation and bias of a statistic of one or more independent sets.

    Quenouille (1956) and Tukey (1958); Efron and Tibshirani, "An introduction to the bootstrap"
    (1993), eq. 11.5 and 10.12. Variances and biases of the sets add.

    Args:
      value: the statistic.
      left_out: for each set, the statistic without each of its groups, which are equally large.

    Returns:
      The standard deviation, and the bias: `value` minus the bias is the corrected statistic.

    Raises:
      ValueError: a set has fewer than two groups.
    """
    if min(map(len, left_out)) < 2:
        raise ValueError(f"a jackknife needs two groups, got {list(map(len, left_out))}")
    variance = sum((len(values) - 1) * float(np.var(values)) for values in left_out)
    bias = sum((len(values) - 1) * float(np.mean(values) - value) for values in left_out)
    return variance**0.5, bias
