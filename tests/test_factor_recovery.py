"""Compares the recovery of factors with scikit-learn, SciPy, and faces with known losses."""

import numpy as np
import pytest
import scipy.stats
from factor_tables import KINDS, factors_of, mixed_codes, standardised
from hypothesis import given, settings
from hypothesis import strategies as st

from vaejax.data.synthetic.faces import FACTORS, draw_factors, render
from vaejax.data.synthetic_labels import factor_matrix
from vaejax.errors import UserError
from vaejax.metrics import thumbnail_features
from vaejax.metrics.factor_recovery import (
    PENALTIES,
    distribution_distance,
    factor_recovery,
    fit_factors,
)


@pytest.mark.parametrize("features", [1, 12, 300])
def test_predictions_are_those_of_ridge_regression(sklearn, features):
    rng = np.random.default_rng(0)
    factors = factors_of(150)
    mixing = rng.normal(size=(4, features))
    rows = standardised(factors) @ mixing + rng.normal(size=(150, features))
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
    factors = factors_of(100)
    rows = mixed_codes(factors)[:, :4]
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
    factors = factors_of(1200)
    one_hot = factors[:, 1:2] == np.array([0.0, 2.0])
    facts = standardised(np.concatenate([factors[:, [0, 2, 3]], one_hot], axis=1))
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
    factors = factors_of(100)
    rows = mixed_codes(factors)
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
