"""How well reconstructions preserve the factors of pictures, and samples their distribution.

A ridge regression on rows of features reads the factors. It is trained on real pictures, so it
also shows which factors these features can tell at all: a comparison of reconstructions or samples
says something only about factors whose score on real pictures is well above that of a constant.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Array, Float, Float64, Num

from vaejax.metrics.disentanglement import (
    Factors,
    Kind,
    Kinds,
    check_factors,
    constant_score,
    prediction_score,
)

# Candidates for the penalty, relative to the number of pictures; the features have variance 1.
PENALTIES = 10.0 ** np.arange(-5, 4)

Rows = Num[Array | np.ndarray, "picture feature"]
Predictor = Callable[[Rows], Float64[np.ndarray, "picture factor"]]


def factor_recovery(
    train_rows: Num[Array | np.ndarray, "train_picture feature"],
    train_factors: Num[Array | np.ndarray, "train_picture factor"],
    real_rows: Rows,
    real_factors: Factors,
    reconstructed_rows: Rows,
    sample_rows: Num[Array | np.ndarray, "sample feature"],
    kinds: Kinds,
    seed: int,
) -> dict[str, dict[str, float]]:
    """Predicts factors from features of real pictures, reconstructions and samples.

    Args:
      train_rows: features of real pictures from which the predictor learns.
      train_factors: their factors; of a categorical factor, any number for each category.
      real_rows: features of held-out real pictures.
      real_factors: their factors.
      reconstructed_rows: features of the reconstructions of the held-out pictures, in their order.
      sample_rows: features of samples; of more than half the number of held-out pictures, only the
        first are used.
      kinds: kind of each factor by name, in the order of the columns.
      seed: seed of the division of the held-out pictures into halves.

    Returns:
      For each factor, the accuracy (categorical) or R² (continuous) on real pictures, `real`, on
      reconstructions, `reconstructed`, and of the best constant, `constant`; and the distance of
      the distribution of predictions on one half of the real pictures to that on as many samples,
      `sample_distance`, and on the other half, `real_distance`, which is the floor. Distances are
      the total variation distance (categorical) or the Kolmogorov-Smirnov statistic (continuous).

    Raises:
      UserError: a factor does not vary.
      ValueError: the numbers of columns of factors and kinds differ.
    """
    real_factors = np.asarray(real_factors, np.float64)
    check_factors(real_factors, kinds)
    predict = fit_factors(train_rows, train_factors, kinds)
    real, reconstructed, samples = map(predict, (real_rows, reconstructed_rows, sample_rows))
    count = min(len(real) // 2, len(samples))
    halves = np.random.default_rng(seed).permutation(len(real))
    half, other = real[halves[:count]], real[halves[count : 2 * count]]
    return {
        name: {
            "constant": constant_score(real_factors[:, place], kind),
            "real": prediction_score(real[:, place], real_factors[:, place], kind),
            "reconstructed": prediction_score(
                reconstructed[:, place], real_factors[:, place], kind
            ),
            "real_distance": distribution_distance(half[:, place], other[:, place], kind),
            "sample_distance": distribution_distance(half[:, place], samples[:count, place], kind),
        }
        for place, (name, kind) in enumerate(kinds.items())
    }


def fit_factors(rows: Rows, factors: Factors, kinds: Kinds) -> Predictor:
    """Fits a ridge regression of all factors on standardised features, in float64.

    The penalty of each factor minimises the squared error of leave-one-out predictions (Hastie,
    Tibshirani and Friedman, "The elements of statistical learning", 2009, section 7.10). A
    continuous factor is predicted within its range. A categorical one is regressed as 0 or 1 for
    each category, and the category with the highest prediction is predicted.

    Returns:
      A function from rows of features to factors.

    Raises:
      UserError: a factor does not vary.
      ValueError: the numbers of columns and kinds differ.
    """
    rows, factors = np.asarray(rows, np.float64), np.asarray(factors, np.float64)
    check_factors(factors, kinds)
    mean, scale = rows.mean(axis=0), rows.std(axis=0)
    scale[scale == 0] = 1
    standardised = (rows - mean) / scale
    # In the basis of the principal components, the penalty acts on each component alone.
    variances, vectors = np.linalg.eigh(standardised.T @ standardised / len(rows))
    levels = [np.unique(column) for column in factors.T]
    targets = [_targets(column, kind) for column, kind in zip(factors.T, kinds.values())]
    fits = _ridge(standardised @ vectors, np.maximum(variances, 0), targets)

    def predict(rows: Rows) -> Float64[np.ndarray, "picture factor"]:
        components = (np.asarray(rows, np.float64) - mean) / scale @ vectors
        return np.stack(
            [
                _predicted(components @ weights + constants, values, kind)
                for (weights, constants), values, kind in zip(fits, levels, kinds.values())
            ],
            axis=1,
        )

    return predict


def distribution_distance(
    a: Float[np.ndarray, " count_a"], b: Float[np.ndarray, " count_b"], kind: Kind
) -> float:
    """Computes the distance, 0 to 1, of the distributions of a factor in two sets of pictures.

    It is the total variation distance of categories, or the Kolmogorov-Smirnov statistic of
    continuous values: the largest difference of the cumulative distributions. Both are larger than
    0 for two sets of one distribution, the more so the smaller the sets are.
    """
    values = np.union1d(a, b)
    if kind == "categorical":
        shares = [np.mean(part == values[:, None], axis=1) for part in (a, b)]
        return float(np.abs(shares[0] - shares[1]).sum() / 2)
    below = [np.searchsorted(np.sort(part), values, "right") / len(part) for part in (a, b)]
    return float(np.abs(below[0] - below[1]).max())


def _targets(factor, kind):
    """Returns what is regressed: 0 or 1 for each category, or the value; `[picture, target]`."""
    if kind == "categorical":
        return (factor[:, None] == np.unique(factor)).astype(np.float64)
    return factor[:, None]


def _predicted(regressed, values, kind):
    """Returns the predicted factor, given the regressed targets and the values in training."""
    if kind == "categorical":
        return values[np.argmax(regressed, axis=1)]
    return np.clip(regressed[:, 0], values[0], values[-1])


def _ridge(
    components: Float64[np.ndarray, "picture feature"],
    variances: Float64[np.ndarray, " feature"],
    targets: list[Float64[np.ndarray, "picture ..."]],
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Fits weights and constants of each factor's targets on principal components."""
    stacked = np.concatenate(targets, axis=1)
    constants = stacked.mean(axis=0)
    products = components.T @ (stacked - constants) / len(components)
    weights, errors = [], []
    for penalty in PENALTIES:
        shrinkage = 1 / (variances + penalty)
        weights.append(shrinkage[:, None] * products)
        leverage = (1 + components**2 @ shrinkage) / len(components)
        residuals = stacked - constants - components @ weights[-1]
        errors.append(np.mean((residuals / (1 - leverage)[:, None]) ** 2, axis=0))
    fits, start = [], 0
    for target in targets:
        part = slice(start, start := start + target.shape[1])
        best = np.argmin([error[part].sum() for error in errors])
        fits.append((weights[best][:, part], constants[part]))
    return fits
