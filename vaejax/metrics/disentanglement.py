"""Disentanglement of codes: MIG, DCI and SAP, for pictures whose factors of variation are known.

The definitions are those of disentanglement_lib (Locatello et al., "Challenging common assumptions
in the unsupervised learning of disentangled representations", ICML 2019), which treats all factors
of a data set alike. Here each factor is categorical or continuous, and where the two differ,
the metric's paper decides.
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Literal

import numpy as np
from jaxtyping import Array, Float, Float64, Int, Int64, Num, Shaped

from vaejax.errors import UserError

BINS = 20
# disentanglement_lib trains on 10,000 pictures and tests on 5,000.
TRAIN_SHARE = 2 / 3

Codes = Float[Array | np.ndarray, "picture latent"]
TestCodes = Float[Array | np.ndarray, "test_picture latent"]
Factors = Num[Array | np.ndarray, "picture factor"]
TestFactors = Num[Array | np.ndarray, "test_picture factor"]
Kind = Literal["categorical", "continuous"]
Kinds = Mapping[str, Kind]
"""The kind of each factor by name, in the order of the columns of a matrix of factors."""


def factor_scores(codes: Codes, factors: Factors, kinds: Kinds, seed: int) -> dict[str, float]:
    """Computes MIG, DCI and SAP of the codes of pictures.

    MIG uses all pictures. DCI and SAP are fitted to a random two thirds of them and tested on the
    others. The boosted trees of DCI take nearly all of the time.

    Args:
      codes: posterior means, or other codes, of the pictures.
      factors: values of the factors; of a categorical factor, any number for each category.
      kinds: kind of each factor by name, in the order of the columns.
      seed: seed of the division into training and test pictures, and of the trees.

    Returns:
      `mig`, `dci_disentanglement`, `dci_completeness`, `dci_informativeness` and `sap`, all at
      most 1 and better if higher, and `dci_informativeness_constant`: the informativeness of codes
      that say nothing, for which the best prediction is a constant.

    Raises:
      UserError: scikit-learn is not installed, a factor does not vary, or there are fewer than two
        latents or factors.
    """
    codes, factors = np.asarray(codes, np.float64), np.asarray(factors, np.float64)
    if codes.shape[1] < 2 or factors.shape[1] < 2:
        raise UserError(
            f"{codes.shape[1]} latents and {factors.shape[1]} factors: the scores compare latents "
            "with each other, and factors; give at least two of each"
        )
    order = np.random.default_rng(seed).permutation(len(codes))
    train, test = np.split(order, [int(np.ceil(TRAIN_SHARE * len(codes)))])
    fitted, tested = (codes[train], factors[train]), (codes[test], factors[test])
    for part in (fitted, tested):
        check_factors(part[1], kinds)
    importance, informativeness = importance_matrix(*fitted, *tested, kinds, seed)
    constant = [constant_score(true, kind) for true, kind in zip(tested[1].T, kinds.values())]
    return {
        "mig": mutual_information_gap(codes, factors, kinds),
        "dci_disentanglement": disentanglement(importance),
        "dci_completeness": completeness(importance),
        "dci_informativeness": float(np.mean(informativeness)),
        "dci_informativeness_constant": float(np.mean(constant)),
        "sap": separated_attribute_predictability(*fitted, *tested, kinds),
    }


def mutual_information_gap(codes: Codes, factors: Factors, kinds: Kinds) -> float:
    """Computes the mutual information gap, averaged over factors.

    Chen, Li, Grosse and Duvenaud, "Isolating sources of disentanglement in VAEs" (NeurIPS 2018),
    eq. 6: the difference of the two highest mutual informations of one latent and the factor, as
    a share of the factor's entropy. Codes and continuous factors are divided into 20 bins of equal
    width, from the lowest to the highest value.
    """
    latents = [_binned(column) for column in np.asarray(codes, np.float64).T]
    gaps = []
    for column, kind in zip(np.asarray(factors, np.float64).T, kinds.values()):
        factor = _numbered(column) if kind == "categorical" else _binned(column)
        informations = sorted(mutual_information(latent, factor) for latent in latents)
        gaps.append((informations[-1] - informations[-2]) / mutual_information(factor, factor))
    return float(np.mean(gaps))


def mutual_information(a: Int[np.ndarray, " picture"], b: Int[np.ndarray, " picture"]) -> float:
    """Computes the mutual information, in nats, of the empirical distribution of two variables.

    Args:
      a: values of the first variable, whole numbers from 0 on.
      b: values of the second variable for the same pictures, likewise.
    """
    columns = int(b.max()) + 1
    counts = np.bincount(a * columns + b, minlength=(int(a.max()) + 1) * columns)
    joint = counts.reshape(-1, columns) / len(a)
    independent = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    seen = joint > 0
    return float(np.sum(joint[seen] * np.log(joint[seen] / independent[seen])))


def importance_matrix(
    codes: Codes,
    factors: Factors,
    test_codes: TestCodes,
    test_factors: TestFactors,
    kinds: Kinds,
    seed: int,
) -> tuple[Float64[np.ndarray, "latent factor"], Float64[np.ndarray, " factor"]]:
    """Predicts each factor from the codes by gradient-boosted trees.

    The trees are scikit-learn's with its default settings, as in disentanglement_lib: a classifier
    for a categorical factor, a regressor for a continuous one. Factors are fitted in parallel.

    Returns:
      The importance of each latent for each factor (columns sum to 1, or are 0 where no tree has a
      split), and the test score of each factor: accuracy or R².

    Raises:
      UserError: scikit-learn is not installed.
    """
    ensemble = _scikit_learn().ensemble
    trees = {
        "categorical": ensemble.GradientBoostingClassifier,
        "continuous": ensemble.GradientBoostingRegressor,
    }

    def fit(column, test_column, kind):
        values = _numbered(column) if kind == "categorical" else column
        model = trees[kind](random_state=seed).fit(codes, values)
        predicted = model.predict(test_codes)
        if kind == "categorical":
            predicted = np.unique(column)[predicted]
        return model.feature_importances_, prediction_score(predicted, test_column, kind)

    # Threads suffice: scikit-learn releases Python's lock while it builds a tree.
    with ThreadPoolExecutor() as pool:
        columns = pool.map(fit, np.transpose(factors), np.transpose(test_factors), kinds.values())
        importances, scores = zip(*columns)
    return np.stack(importances, axis=1), np.array(scores)


def disentanglement(importance: Float[np.ndarray, "latent factor"]) -> float:
    """Computes how far each latent matters for one factor only; 1 is best.

    Eastwood and Williams, "A framework for the quantitative evaluation of disentangled
    representations" (ICLR 2018), section 2: 1 minus the entropy of a latent's importances for the
    factors (base: the number of factors), averaged over latents in proportion to their importance.
    """
    # disentanglement_lib's constant: a latent that matters for nothing counts as fully entangled.
    shares = importance + 1e-11
    shares = shares / shares.sum(axis=1, keepdims=True)
    entropy = -np.sum(shares * np.log(shares), axis=1) / np.log(importance.shape[1])
    weights = importance.sum(axis=1) if importance.any() else np.ones(len(importance))
    return float(np.average(1 - entropy, weights=weights))


def completeness(importance: Float[np.ndarray, "latent factor"]) -> float:
    """Computes how far each factor is in one latent only; 1 is best.

    It is `disentanglement` with latents and factors exchanged (Eastwood and Williams, section 2).
    """
    return disentanglement(importance.T)


def separated_attribute_predictability(
    codes: Codes, factors: Factors, test_codes: TestCodes, test_factors: TestFactors, kinds: Kinds
) -> float:
    """Computes the SAP score: how much better the best latent predicts a factor than the next.

    Kumar, Sattigeri and Balakrishnan, "Variational inference of disentangled latent concepts from
    unlabeled observations" (ICLR 2018), section 3, averaged over factors. A latent predicts a
    continuous factor by a line, with the squared correlation on the first pictures as its score,
    and a categorical factor by linear support vectors (C = 0.01, balanced classes), with the
    accuracy on the test pictures.

    Raises:
      UserError: scikit-learn is not installed.
    """
    svm = _scikit_learn().svm

    def score(latent, test_latent, column, test_column, kind):
        if kind == "continuous":
            # A latent that the model does not use has no correlation.
            return np.corrcoef(latent, column)[0, 1] ** 2 if np.var(latent) > 1e-12 else 0.0
        classifier = svm.LinearSVC(C=0.01, class_weight="balanced", dual=False)
        predicted = classifier.fit(latent[:, None], column).predict(test_latent[:, None])
        return prediction_score(predicted, test_column, kind)

    gaps = []
    for factor in zip(np.transpose(factors), np.transpose(test_factors), kinds.values()):
        scores = sorted(score(*latent, *factor) for latent in zip(codes.T, test_codes.T))
        gaps.append(scores[-1] - scores[-2])
    return float(np.mean(gaps))


def check_factors(factors: Factors, kinds: Kinds) -> None:
    """Checks that there is a kind for each factor, and that each factor varies.

    Raises:
      UserError: a factor has fewer than two values.
      ValueError: the numbers of columns and kinds differ.
    """
    if factors.shape[1] != len(kinds):
        raise ValueError(f"{factors.shape[1]} columns of factors, but {len(kinds)} kinds")
    for name, column in zip(kinds, np.transpose(factors)):
        if len(np.unique(column)) < 2:
            raise UserError(
                f"factor {name!r} does not vary in a set of {len(column)} pictures; "
                "use more pictures or leave it out"
            )


def prediction_score(
    predicted: Shaped[np.ndarray, " picture"], true: Shaped[np.ndarray, " picture"], kind: Kind
) -> float:
    """Computes the accuracy of a categorical factor, or R² (1 - MSE / variance) of a continuous."""
    if kind == "categorical":
        return float(np.mean(predicted == true))
    return float(1 - np.mean((predicted - true) ** 2) / np.var(true))


def constant_score(true: Shaped[np.ndarray, " picture"], kind: Kind) -> float:
    """Computes the highest `prediction_score` that a constant can have."""
    return float(np.bincount(_numbered(true)).max() / len(true)) if kind == "categorical" else 0.0


def _numbered(values: Float64[np.ndarray, " picture"]) -> Int64[np.ndarray, " picture"]:
    """Numbers the different values from 0 on, in ascending order."""
    return np.unique(values, return_inverse=True)[1]


def _binned(values: Float64[np.ndarray, " picture"]) -> Int64[np.ndarray, " picture"]:
    """Divides the range of the values into bins of equal width."""
    return np.digitize(values, np.histogram_bin_edges(values, BINS)[1:-1])


def _scikit_learn() -> ModuleType:
    """Imports scikit-learn, which is optional, when it is needed."""
    try:
        import sklearn.ensemble
        import sklearn.svm
    except ImportError as error:
        raise UserError(
            f"DCI and SAP need scikit-learn, which cannot be imported ({error}): "
            "pip install scikit-learn"
        ) from error
    return sklearn
