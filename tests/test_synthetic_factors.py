"""Tests of the factors of procedural faces: a function of (seed, index), in declared ranges."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vaejax.data.synthetic.faces import FACTORS, draw_factors

NAMES = [factor.name for factor in FACTORS]
MANY = np.arange(4000)


@pytest.fixture(scope="module")
def labels():
    """Returns the factors of many faces of the first population."""
    return draw_factors(MANY)


def test_every_factor_is_declared_once_and_documented():
    assert len(set(NAMES)) == len(NAMES)
    for factor in FACTORS:
        assert factor.doc and factor.kind in ("continuous", "categorical")
        assert (factor.kind == "categorical") == bool(factor.categories)
        assert len(factor.shares) == len(factor.categories)
        assert factor.low < factor.high


@pytest.mark.parametrize("factor", FACTORS, ids=NAMES)
def test_labels_cover_the_declared_range(labels, factor):
    values = labels[factor.name]
    if factor.kind == "categorical":
        assert values.dtype == np.int32
        drawn = np.bincount(values, minlength=len(factor.categories)) / len(MANY)
        np.testing.assert_allclose(drawn, factor.shares, atol=0.03)
    else:
        assert values.dtype == np.float32
        assert values.min() >= np.float32(factor.low) and values.max() <= np.float32(factor.high)
        # With the power undone, values are uniform: each tenth of the range is about as frequent.
        place = (values.astype(np.float64) - factor.low) / (factor.high - factor.low)
        uniform = np.clip(place, 0, 1) ** (1 / factor.power)
        assert np.histogram(uniform, 10, (0, 1))[0].min() > 0.07 * len(MANY)


def test_factors_are_drawn_independently(labels):
    table = np.stack([column.astype(np.float64) for column in labels.values()])
    correlation = np.corrcoef(table) - np.eye(len(table))
    assert np.abs(correlation).max() < 5 / np.sqrt(len(MANY))


@settings(max_examples=30)
@given(
    st.lists(st.integers(0, 2**62), min_size=1, max_size=8),
    st.integers(-(2**70), 2**70),
)
def test_factors_depend_on_seed_and_index_alone(indices, seed):
    together = draw_factors(np.array(indices), seed)
    for row, index in enumerate(indices):
        single = draw_factors(np.array([index]), seed)
        assert all(single[name][0] == together[name][row] for name in NAMES)


def test_seeds_draw_different_people(labels):
    first, second = labels, draw_factors(MANY, 1)
    for factor in FACTORS:
        same = np.mean(first[factor.name] == second[factor.name])
        assert same < 0.6  # equal by chance: most faces have neither glasses nor beard
    # Adjacent seeds must not yield overlapping parts of one sequence.
    yaw, other = first["yaw"], second["yaw"]
    assert len(np.intersect1d(yaw, other)) < 10


def test_factors_of_a_face_never_change():
    # Users may have stored labels as ground truth: a new factor must go to the end of FACTORS.
    labels = draw_factors(np.array([0, 123456789]), seed=7)
    found = [round(float(labels[name][row]), 4) for name in ("skin_tone", "yaw") for row in (0, 1)]
    assert found == [0.7916, 0.5433, 27.4118, -3.2275]
    assert labels["hair_style"].tolist() == [3, 1]
