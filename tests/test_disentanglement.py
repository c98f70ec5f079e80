"""Compares the metrics of factors with published definitions, scikit-learn, SciPy, closed forms."""

import sys

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
from factor_tables import KINDS, factors_of, mixed_codes, standardised
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vaejax.errors import UserError
from vaejax.metrics.disentanglement import (
    completeness,
    disentanglement,
    factor_scores,
    importance_matrix,
    mutual_information,
    mutual_information_gap,
    separated_attribute_predictability,
)
from vaejax.metrics.factor_recovery import (
    fit_factors,
)

# References: disentanglement_lib's definitions, whose arrays have a column for each picture.


def _published_mig(sklearn, mus, ys):
    binned = np.zeros_like(mus)
    for i in range(len(mus)):
        binned[i] = np.digitize(mus[i], np.histogram(mus[i], 20)[1][:-1])
    m = [[sklearn.metrics.mutual_info_score(y, mu) for y in ys] for mu in binned]
    entropy = [sklearn.metrics.mutual_info_score(y, y) for y in ys]
    ordered = np.sort(m, axis=0)[::-1]
    return np.mean((ordered[0] - ordered[1]) / entropy)


def _published_disentanglement(importance):
    per_code = 1 - scipy.stats.entropy(importance.T + 1e-11, base=importance.shape[1])
    if importance.sum() == 0:
        importance = np.ones_like(importance)
    return np.sum(per_code * importance.sum(axis=1) / importance.sum())


def _published_completeness(importance):
    per_factor = 1 - scipy.stats.entropy(importance + 1e-11, base=importance.shape[0])
    if importance.sum() == 0:
        importance = np.ones_like(importance)
    return np.sum(per_factor * importance.sum(axis=0) / importance.sum())


def _published_sap(sklearn, mus, ys, mus_test, ys_test, continuous):
    scores = np.zeros((len(mus), len(ys)))
    for i in range(len(mus)):
        for j in range(len(ys)):
            if continuous:
                (var_mu, cov), (_, var_y) = np.cov(mus[i], ys[j], ddof=1)
                scores[i, j] = cov**2 / (var_mu * var_y) if var_mu > 1e-12 else 0
            else:
                classifier = sklearn.svm.LinearSVC(C=0.01, class_weight="balanced")
                classifier.fit(mus[i][:, None], ys[j])
                scores[i, j] = np.mean(classifier.predict(mus_test[i][:, None]) == ys_test[j])
    ordered = np.sort(scores, axis=0)
    return np.mean(ordered[-1] - ordered[-2])


def _of_kind(kind, *tables):
    """Returns the columns of one kind of each table of factors, and their kinds."""
    names = [name for name in KINDS if KINDS[name] == kind]
    places = [list(KINDS).index(name) for name in names]
    return *[table[:, places] for table in tables], dict.fromkeys(names, kind)


@pytest.mark.parametrize("count", [90, 2000])
def test_mig_equals_the_published_definition(sklearn, count):
    factors = factors_of(count)
    codes = mixed_codes(factors)
    categories, kinds = _of_kind("categorical", factors)
    expected = _published_mig(sklearn, codes.T.astype(np.float64), categories.T)
    assert mutual_information_gap(codes, categories, kinds) == pytest.approx(expected, abs=1e-12)
    # The published code takes continuous factors already divided into bins.
    values, kinds = _of_kind("continuous", factors)
    binned = [np.digitize(y, np.histogram(y, 20)[1][:-1]) for y in values.T]
    expected = _published_mig(sklearn, codes.T.astype(np.float64), binned)
    assert mutual_information_gap(codes, values, kinds) == pytest.approx(expected, abs=1e-12)


@settings(max_examples=30)
@given(st.integers(1, 60).flatmap(lambda n: arrays(np.int64, (2, n), elements=st.integers(0, 6))))
def test_mutual_information_is_that_of_entropies(pair):
    def entropy(values):
        return scipy.stats.entropy(np.unique(values, return_counts=True)[1])

    expected = entropy(pair[0]) + entropy(pair[1]) - entropy(pair[0] * 7 + pair[1])
    assert mutual_information(*pair) == pytest.approx(expected, abs=1e-12)
    assert mutual_information(pair[0], pair[0]) == pytest.approx(entropy(pair[0]), abs=1e-12)


@settings(max_examples=30)
@given(
    arrays(np.float64, (5, 3), elements=st.one_of(st.just(0.0), st.floats(1e-6, 1))),
    st.booleans(),
)
def test_dci_of_a_matrix_equals_the_published_definition(importance, wide):
    importance = importance.T if wide else importance
    expected = _published_disentanglement(importance)
    assert disentanglement(importance) == pytest.approx(expected, abs=1e-9)
    expected = _published_completeness(importance)
    assert completeness(importance) == pytest.approx(expected, abs=1e-9)


DIAGONAL = np.eye(5) * 5
TWICE = 1 - np.log(2) / np.log(10)


@pytest.mark.parametrize(
    ("importance", "disentangled", "complete"),
    [
        (DIAGONAL, 1, 1),
        (np.array([[1.0, 0], [0, 1], [0, 0]]), 1, 1),
        (np.zeros((10, 10)), 0, 0),
        (np.ones((3, 4)), 0, 0),
        (np.vstack([DIAGONAL, DIAGONAL]), 1, TWICE),
        (np.hstack([DIAGONAL, DIAGONAL]), TWICE, 1),
    ],
)
def test_dci_of_simple_matrices(importance, disentangled, complete):
    assert disentanglement(importance) == pytest.approx(disentangled, abs=1e-7)
    assert completeness(importance) == pytest.approx(complete, abs=1e-7)


def test_importances_and_informativeness_are_those_of_boosted_trees(sklearn):
    factors, tests = factors_of(120), factors_of(60, seed=1)
    codes, test_codes = mixed_codes(factors), mixed_codes(tests)
    importance, informativeness = importance_matrix(
        codes, factors, test_codes, tests, KINDS, seed=3
    )
    for place, kind in enumerate(KINDS.values()):
        boosting = {
            "categorical": sklearn.ensemble.GradientBoostingClassifier,
            "continuous": sklearn.ensemble.GradientBoostingRegressor,
        }[kind](random_state=3)
        boosting.fit(codes, factors[:, place])
        np.testing.assert_allclose(importance[:, place], boosting.feature_importances_)
        # The accuracy of a classifier, the R² of a regressor.
        expected = boosting.score(test_codes, tests[:, place])
        assert informativeness[place] == pytest.approx(expected, abs=1e-12)


def test_sap_equals_the_published_definition(sklearn):
    factors, tests = factors_of(300), factors_of(200, seed=1)
    codes, test_codes = (mixed_codes(table).astype(np.float64) for table in (factors, tests))
    found = []
    for kind in ("categorical", "continuous"):
        values, test_values, kinds = _of_kind(kind, factors, tests)
        expected = _published_sap(
            sklearn, codes.T, values.T, test_codes.T, test_values.T, kind == "continuous"
        )
        found.append(
            separated_attribute_predictability(codes, values, test_codes, test_values, kinds)
        )
        assert found[-1] == pytest.approx(expected, abs=1e-9)
    together = separated_attribute_predictability(codes, factors, test_codes, tests, KINDS)
    assert together == pytest.approx(np.mean(found))


def test_codes_that_are_the_factors_score_highest(sklearn):
    factors = factors_of(900)
    scores = factor_scores(factors[:, ::-1] * 3 + 1, factors, KINDS, seed=0)
    # In 20 x 20 bins of 900 pictures, unrelated variables seem to share some information.
    assert 0.9 < scores["mig"] <= 1
    assert all(0.95 < scores[f"dci_{name}"] <= 1 for name in ("disentanglement", "completeness"))
    assert 0.99 < scores["dci_informativeness"] <= 1
    # R² has a gap of 1. Of categories, the accuracy of chance is subtracted, and a line does not
    # separate the middle one of three from the others.
    assert 0.6 < scores["sap"] <= 1


def test_rotated_codes_score_low_but_stay_informative(sklearn):
    rotation = scipy.linalg.hadamard(4) / 2  # each code is an equal mixture of all factors
    factors = factors_of(900)
    scores = factor_scores(standardised(factors) @ rotation, factors, KINDS, seed=0)
    for name in ("mig", "dci_disentanglement", "dci_completeness", "sap"):
        assert scores[name] < 0.3, name
    assert scores["dci_informativeness"] > scores["dci_informativeness_constant"] + 0.3


def test_random_codes_score_nothing(sklearn):
    factors = factors_of(900)
    codes = np.random.default_rng(1).normal(size=(900, 5)).astype(np.float32)
    scores = factor_scores(codes, factors, KINDS, seed=0)
    for name in ("mig", "dci_disentanglement", "dci_completeness", "sap"):
        assert scores[name] < 0.1, name
    constant = scores["dci_informativeness_constant"]
    assert constant == pytest.approx((0 + 1 / 3 + 0 + 1 / 2) / 4, abs=0.03)
    assert scores["dci_informativeness"] < constant + 0.03


def test_scores_depend_on_the_seed_alone(sklearn):
    factors = factors_of(150)
    codes = mixed_codes(factors)
    first, second, other = (factor_scores(codes, factors, KINDS, seed) for seed in (0, 0, 1))
    assert first == second != other


def test_attributes_of_0_and_1_are_factors(sklearn):
    """Attributes of CelebA are whole numbers."""
    attributes = (factors_of(100)[:, [1, 3]] > 0).astype(np.int8)
    kinds = {"Smiling": "categorical", "Male": "categorical"}
    codes = attributes + np.random.default_rng(0).normal(0, 0.1, (100, 2))
    assert factor_scores(codes, attributes, kinds, seed=0)["dci_disentanglement"] > 0.9


def test_mistakes_are_told_in_one_line(monkeypatch):
    factors = factors_of(60)
    codes = mixed_codes(factors)
    with pytest.raises(UserError, match=r"1 latents and 4 factors"):
        factor_scores(codes[:, :1], factors, KINDS, seed=0)
    with pytest.raises(UserError, match=r"'pose' does not vary in a set of 1 pictures"):
        factor_scores(codes[:1], factors[:1], KINDS, seed=0)
    unvarying = factors * np.array([1, 1, 0, 1])
    with pytest.raises(UserError, match=r"'light' does not vary in a set of 40 pictures"):
        factor_scores(codes, unvarying, KINDS, seed=0)
    with pytest.raises(UserError, match=r"'light' does not vary in a set of 60 pictures"):
        fit_factors(codes, unvarying, KINDS)
    with pytest.raises(ValueError, match="4 columns of factors, but 1 kinds"):
        fit_factors(codes, factors, {"pose": "continuous"})
    for part in ("sklearn", "sklearn.ensemble", "sklearn.svm"):
        monkeypatch.setitem(sys.modules, part, None)
    with pytest.raises(UserError, match=r"need scikit-learn.*: pip install scikit-learn$"):
        factor_scores(codes, factors, KINDS, seed=0)
