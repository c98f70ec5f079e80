"""Compares the metrics of factors with published definitions, scikit-learn, SciPy, closed forms."""

import sys

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vaejax.data.synthetic.faces import FACTORS, draw_factors, render
from vaejax.data.synthetic_labels import factor_matrix
from vaejax.errors import UserError
from vaejax.metrics import thumbnail_features
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
    PENALTIES,
    distribution_distance,
    factor_recovery,
    fit_factors,
)

KINDS = {
    "pose": "continuous",
    "style": "categorical",
    "light": "continuous",
    "smiles": "categorical",
}


def _factors(count, seed=0):
    rng = np.random.default_rng(seed)
    return np.stack(
        [
            rng.uniform(-30, 30, count),
            rng.integers(0, 3, count) * 2.0,
            rng.uniform(0, 1, count) ** 2,
            rng.integers(0, 2, count),
        ],
        axis=1,
    )


def _standardised(values):
    return (values - values.mean(axis=0)) / values.std(axis=0)


def _mixed_codes(factors, seed=0):
    """Returns five codes: two factors, each with noise, a mixture of all, noise, and a constant."""
    rng = np.random.default_rng(seed)
    values = _standardised(factors)
    mixed = values @ rng.normal(size=(values.shape[1], 1))
    noise = rng.normal(size=(len(values), 1))
    codes = [values[:, :2] + 0.2 * noise, mixed, noise, 0 * noise]
    return np.concatenate(codes, axis=1).astype(np.float32)


@pytest.fixture
def sklearn():
    """Imports the parts of scikit-learn that the references use; skips the test without it."""
    package = pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    for part in ("ensemble", "linear_model", "metrics", "preprocessing", "svm"):
        pytest.importorskip(f"sklearn.{part}")
    return package


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
    factors = _factors(count)
    codes = _mixed_codes(factors)
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
    factors, tests = _factors(120), _factors(60, seed=1)
    codes, test_codes = _mixed_codes(factors), _mixed_codes(tests)
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
    factors, tests = _factors(300), _factors(200, seed=1)
    codes, test_codes = (_mixed_codes(table).astype(np.float64) for table in (factors, tests))
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
    factors = _factors(900)
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
    factors = _factors(900)
    scores = factor_scores(_standardised(factors) @ rotation, factors, KINDS, seed=0)
    for name in ("mig", "dci_disentanglement", "dci_completeness", "sap"):
        assert scores[name] < 0.3, name
    assert scores["dci_informativeness"] > scores["dci_informativeness_constant"] + 0.3


def test_random_codes_score_nothing(sklearn):
    factors = _factors(900)
    codes = np.random.default_rng(1).normal(size=(900, 5)).astype(np.float32)
    scores = factor_scores(codes, factors, KINDS, seed=0)
    for name in ("mig", "dci_disentanglement", "dci_completeness", "sap"):
        assert scores[name] < 0.1, name
    constant = scores["dci_informativeness_constant"]
    assert constant == pytest.approx((0 + 1 / 3 + 0 + 1 / 2) / 4, abs=0.03)
    assert scores["dci_informativeness"] < constant + 0.03


def test_scores_depend_on_the_seed_alone(sklearn):
    factors = _factors(150)
    codes = _mixed_codes(factors)
    first, second, other = (factor_scores(codes, factors, KINDS, seed) for seed in (0, 0, 1))
    assert first == second != other


def test_attributes_of_0_and_1_are_factors(sklearn):
    """Attributes of CelebA are whole numbers."""
    attributes = (_factors(100)[:, [1, 3]] > 0).astype(np.int8)
    kinds = {"Smiling": "categorical", "Male": "categorical"}
    codes = attributes + np.random.default_rng(0).normal(0, 0.1, (100, 2))
    assert factor_scores(codes, attributes, kinds, seed=0)["dci_disentanglement"] > 0.9


def test_mistakes_are_told_in_one_line(monkeypatch):
    factors = _factors(60)
    codes = _mixed_codes(factors)
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


@pytest.mark.parametrize("features", [1, 12, 300])
def test_predictions_are_those_of_ridge_regression(sklearn, features):
    rng = np.random.default_rng(0)
    factors = _factors(150)
    mixing = rng.normal(size=(4, features))
    rows = _standardised(factors) @ mixing + rng.normal(size=(150, features))
    unseen = rng.normal(size=(40, features))
    predicted = fit_factors(rows, factors, KINDS)(unseen)
    scaler = sklearn.preprocessing.StandardScaler().fit(rows)
    for place, kind in enumerate(KINDS.values()):
        column = factors[:, place]
        levels = np.unique(column)
        targets = (column[:, None] == levels) * 1.0 if kind == "categorical" else column
        ridge = sklearn.linear_model.RidgeCV(PENALTIES * 150).fit(scaler.transform(rows), targets)
        expected = ridge.predict(scaler.transform(unseen))
        if kind == "categorical":
            np.testing.assert_array_equal(predicted[:, place], levels[expected.argmax(axis=1)])
        else:
            np.testing.assert_allclose(
                predicted[:, place], np.clip(expected, levels[0], levels[-1]), rtol=1e-6, atol=1e-6
            )


def test_a_feature_that_never_varies_changes_nothing():
    factors = _factors(100)
    rows = _mixed_codes(factors)[:, :4]
    constant = np.full((100, 1), 7, np.float32)
    found = fit_factors(np.concatenate([rows, constant], axis=1), factors, KINDS)
    unseen = np.concatenate([rows[:10], constant[:10]], axis=1)
    expected = fit_factors(rows, factors, KINDS)(rows[:10])
    np.testing.assert_allclose(found(unseen), expected, rtol=1e-9)


SMALL = st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=30).map(np.array)


@settings(max_examples=30)
@given(SMALL, SMALL)
def test_distances_of_distributions(a, b):
    # The Kolmogorov-Smirnov statistic; SciPy's own test also computes p-values, and may warn.
    below_a, below_b = (scipy.stats.ecdf(x).cdf.evaluate(np.arange(-3, 4)) for x in (a, b))
    expected = np.max(np.abs(below_a - below_b))
    assert distribution_distance(a, b, "continuous") == pytest.approx(expected, abs=1e-12)
    # The largest difference of the probabilities of any set of categories, of which there are 2^7.
    sets = (np.arange(128)[:, None] >> np.arange(7)) & 1
    chances = [np.array([np.mean(x == v) for v in range(-3, 4)]) for x in (a, b)]
    expected = np.max(sets @ (chances[0] - chances[1]))
    assert distribution_distance(a, b, "categorical") == pytest.approx(expected, abs=1e-12)


def test_the_factors_of_a_split_become_a_matrix():
    labels = draw_factors(np.arange(20))
    # A split's labels may hold more than the factors, in another order.
    matrix, kinds = factor_matrix({"other": np.zeros((20, 2)), **dict(reversed(labels.items()))})
    assert matrix.dtype == np.float32 and matrix.shape == (20, len(FACTORS))
    for place, (factor, name) in enumerate(zip(FACTORS, kinds)):
        assert (name, kinds[name]) == (factor.name, factor.kind)
        np.testing.assert_array_equal(matrix[:, place], labels[name])
    with pytest.raises(UserError, match=r"no label 'skin_tone'.*config\.data\.source=synthetic"):
        factor_matrix({"attributes": np.zeros((20, 40))})


def test_recovery_tells_which_factors_are_lost():
    """The "model" gives all pictures the same pose, and samples no style but the first."""
    rng = np.random.default_rng(0)
    factors = _factors(1200)
    one_hot = factors[:, 1:2] == np.array([0.0, 2.0])
    facts = _standardised(np.concatenate([factors[:, [0, 2, 3]], one_hot], axis=1))
    mixing = rng.normal(size=(5, 20))
    lost, sampled = np.array([0, 1, 1, 1, 1]), factors[:, 1] == 0
    rows = facts @ mixing + 0.3 * rng.normal(size=(1200, 20))
    reconstructed = (facts * lost) @ mixing
    train, held_out = slice(0, 600), slice(600, 1200)
    found = factor_recovery(
        rows[train],
        factors[train],
        rows[held_out],
        factors[held_out],
        reconstructed[held_out],
        rows[sampled],
        KINDS,
        seed=0,
    )
    assert list(found) == list(KINDS)
    pose, style, light = found["pose"], found["style"], found["light"]
    assert pose["constant"] == light["constant"] == 0
    assert style["constant"] == np.max(np.bincount(factors[held_out, 1].astype(int))) / 600
    assert all(scores["real"] > 0.9 for scores in found.values())
    assert pose["reconstructed"] < 0.05 < 0.9 < light["reconstructed"]
    assert style["reconstructed"] > 0.9
    # A third of the real pictures have the style of all samples.
    assert style["sample_distance"] == pytest.approx(2 / 3, abs=0.06)
    for scores in found.values():
        assert scores["real_distance"] < 0.12
    assert light["sample_distance"] < 0.12


def test_fewer_samples_are_compared_with_as_many_pictures():
    factors = _factors(100)
    rows = _mixed_codes(factors)
    found = factor_recovery(rows, factors, rows, factors, rows, rows[:1], KINDS, seed=0)
    # Of one picture and one sample, either all or nothing agrees.
    for scores in found.values():
        assert scores["real_distance"] in (0, 1) and scores["sample_distance"] in (0, 1)


@pytest.mark.slow
def test_recovery_tells_which_factors_a_model_of_faces_loses():
    """The "model" keeps the light and the hair style, and gives all the same skin."""
    factors = draw_factors(np.arange(900))
    held_out = {name: column[600:] for name, column in factors.items()}
    changed = {**held_out, "skin_tone": np.full(300, 0.5, np.float32)}
    # It samples faces that are lit from the right only, without other mistakes.
    drawn = draw_factors(np.arange(900, 1100))
    samples = {**drawn, "light": np.abs(drawn["light"])}
    rows = [
        np.asarray(thumbnail_features(render(faces, 64, 64)))
        for faces in (factors, changed, samples)
    ]
    matrix, kinds = factor_matrix(factors)
    found = factor_recovery(
        rows[0][:600], matrix[:600], rows[0][600:], matrix[600:], rows[1], rows[2], kinds, seed=0
    )
    assert list(found) == [factor.name for factor in FACTORS]
    assert found["skin_tone"]["real"] > 0.8 and found["light"]["real"] > 0.7
    assert found["skin_tone"]["reconstructed"] < 0.1 < 0.7 < found["light"]["reconstructed"]
    style = found["hair_style"]
    assert style["constant"] < 0.3 < 0.6 < style["reconstructed"] < style["real"] + 0.05
    assert found["light"]["sample_distance"] > 0.4 > 0.2 > found["light"]["real_distance"]
    for name in ("skin_tone", "hair_style"):
        assert found[name]["sample_distance"] < 0.2
