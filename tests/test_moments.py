"""Streaming moments, the bootstrap and the jackknife against NumPy, closed forms and repeats."""

import itertools

import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from vaejax.metrics.bootstrap import (
    bootstrap_std,
    draws,
    jackknife,
    mean_estimate,
    resampled_means,
)
from vaejax.metrics.moments import Moments, checked_rows, moments_of


def _rows(count=50, features=4, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, features)) @ rng.normal(size=(features, features)) + 3


def _assert_equal(a, b):
    np.testing.assert_array_equal(a.counts, b.counts)
    for group in range(len(a.counts)):
        weights = np.eye(len(a.counts))[group]
        if a.counts[group]:
            np.testing.assert_allclose(a.mean(weights), b.mean(weights), rtol=1e-10)
        if a.counts[group] > 1:
            expected = b.covariance(weights)
            np.testing.assert_allclose(a.covariance(weights), expected, rtol=1e-8, atol=1e-12)


def test_moments_equal_numpy():
    rows = _rows()
    moments = Moments.empty(4).add(rows)
    np.testing.assert_allclose(moments.mean(), rows.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(moments.covariance(), np.cov(rows.T), rtol=1e-11)
    assert moments.counts.tolist() == [3] * 10 + [2] * 10


def test_a_row_belongs_to_the_group_of_its_number():
    rows = _rows(23)
    moments = moments_of(np.split(rows, [4, 5, 17]), groups=5)
    for group in range(5):
        part, weights = rows[group::5], np.eye(5)[group]
        assert moments.counts[group] == len(part)
        np.testing.assert_allclose(moments.mean(weights), part.mean(axis=0), rtol=1e-11)
        np.testing.assert_allclose(moments.covariance(weights), np.cov(part.T), rtol=1e-9)


def test_a_weight_repeats_the_rows_of_a_group():
    rows, weights = _rows(26), np.array([2, 0, 3, 1])
    repeated = np.repeat(rows, weights[np.arange(26) % 4], axis=0)
    moments = Moments.empty(4, groups=4).add(rows)
    np.testing.assert_allclose(moments.mean(weights), repeated.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(moments.covariance(weights), np.cov(repeated.T), rtol=1e-10)


@settings(max_examples=30)
@given(cuts=st.lists(st.integers(0, 40), max_size=6), groups=st.integers(1, 7))
def test_moments_do_not_depend_on_batches(cuts, groups):
    rows = _rows(40)
    in_batches = Moments.empty(4, groups)
    for batch in np.split(rows, sorted(cuts)):
        in_batches = in_batches.add(batch)
    _assert_equal(in_batches, Moments.empty(4, groups).add(rows))


@settings(max_examples=10)
@given(sizes=st.lists(st.integers(0, 30), min_size=3, max_size=3))
def test_moments_do_not_depend_on_the_order_of_merges(sizes):
    sets = [Moments.empty(4, 3).add(_rows(max(1, n), seed=n)[:n] + n) for n in sizes]
    first, *others = (
        a.merge(b).merge(c) for x, y, z in itertools.permutations(sets) for a, b, c in [(x, y, z)]
    )
    for other in others:
        _assert_equal(first, other)
    _assert_equal(first, sets[0].merge(sets[1].merge(sets[2])))


def test_merged_moments_are_those_of_all_rows():
    # Six rows are a whole number of rounds of the groups, so that each row keeps its group.
    rows = _rows(20)
    merged = Moments.empty(4, 3).add(rows[:6]).merge(Moments.empty(4, 3).add(rows[6:]))
    _assert_equal(merged, Moments.empty(4, 3).add(rows))
    # A merged set accepts more rows.
    np.testing.assert_allclose(merged.add(rows).covariance(), np.cov(np.tile(rows.T, 2)), rtol=1e-9)


def test_a_large_mean_does_not_cancel_the_covariance():
    rows = _rows(500) * 1e-3
    moments = moments_of(np.split(rows + 1e6, 10))
    # Float64 keeps values near 1e6 to 1e-10.
    np.testing.assert_allclose(moments.covariance(), np.cov(rows.T), rtol=1e-5)


def test_many_small_batches_are_collected():
    rows = _rows(5000).astype(np.float32)
    _assert_equal(
        moments_of(jnp.asarray(rows[i : i + 7]) for i in range(0, 5000, 7)),
        Moments.empty(4).add(rows),
    )


def test_memory_does_not_grow_with_the_pictures():
    moments = Moments.empty(4)
    assert sum(x.nbytes for x in moments) == sum(x.nbytes for x in moments.add(_rows(9999)))


def test_moments_refuse_what_has_none():
    moments = Moments.empty(2, groups=3)
    with pytest.raises(ValueError, match="needs pictures"):
        moments.mean()
    with pytest.raises(ValueError, match="two pictures, got 1"):
        moments.add(np.zeros((1, 2))).covariance()
    with pytest.raises(ValueError, match="3 features, not 2"):
        moments.add(np.zeros((1, 3)))
    with pytest.raises(ValueError, match="row 1 of the features is not finite"):
        moments.add(np.array([[0, 0], [np.nan, 0], [np.inf, 0]]))
    with pytest.raises(ValueError, match="merged"):
        moments.merge(Moments.empty(2))
    with pytest.raises(ValueError, match="no batch"):
        moments_of([])
    assert checked_rows(np.ones((2, 3), np.uint8)).dtype == np.float64


def test_bootstrap_of_a_mean_is_its_standard_error():
    values = np.random.default_rng(0).gamma(2, size=300)
    value, std = mean_estimate(values)
    assert value == pytest.approx(values.mean())
    by_draws = bootstrap_std(lambda w: float(w @ values) / 300, [300], replicates=4000)
    assert by_draws == pytest.approx(std, rel=0.03)
    means = resampled_means(values[:, None], replicates=4000, seed=1)
    assert means.shape == (4000, 1)
    assert means.std() == pytest.approx(std, rel=0.03)
    assert means.mean() == pytest.approx(value, abs=3 * std / 60)


def test_bootstrap_of_a_median():
    values = np.random.default_rng(0).normal(size=2001)
    std = bootstrap_std(lambda w: float(np.median(np.repeat(values, w))), [2001], replicates=400)
    # The median of a normal sample has the variance π / 2N.
    assert std == pytest.approx(np.sqrt(np.pi / 2 / 2001), rel=0.2)


def test_bootstrap_draws_sets_independently():
    values = np.random.default_rng(0).normal(size=200)
    mean = mean_estimate(values).std
    difference = bootstrap_std(lambda a, b: float((a - b) @ values) / 200, [200, 200])
    assert difference == pytest.approx(mean * np.sqrt(2), rel=0.15)


def test_draws_are_a_function_of_the_seed():
    first = [list(draws([9, 4], replicates=3, seed=seed)) for seed in (0, 0, 1)]
    for (a, b), (c, d) in zip(first[0], first[1]):
        np.testing.assert_array_equal(a, c)
        np.testing.assert_array_equal(b, d)
        assert (a.sum(), b.sum()) == (9, 4)
    assert any(not np.array_equal(a, c) for (a, _), (c, _) in zip(first[0], first[2]))
    # NumPy promises this stream: RandomState(0).randint(9, size=9) is 5 0 3 3 7 3 5 2 4.
    assert first[0][0][0].tolist() == [1, 0, 1, 3, 1, 2, 0, 1, 0]


def test_jackknife_of_a_mean_and_of_a_biased_variance():
    values = np.random.default_rng(0).normal(size=60)
    without = (values.sum() - values) / 59
    std, bias = jackknife(values.mean(), without)
    assert std == pytest.approx(values.std(ddof=1) / np.sqrt(60))
    assert bias == pytest.approx(0, abs=1e-12)
    # Of the variance with divisor N it removes the bias exactly.
    variances = np.array([np.var(np.delete(values, i)) for i in range(60)])
    _, bias = jackknife(values.var(), variances)
    assert values.var() - bias == pytest.approx(values.var(ddof=1))
    # Two sets add up.
    both, bias = jackknife(0.0, without - values.mean(), values.mean() - without)
    assert both == pytest.approx(std * np.sqrt(2))


def test_too_few_units_have_no_deviation():
    with pytest.raises(ValueError, match="two units"):
        bootstrap_std(lambda w: 0.0, [1])
    with pytest.raises(ValueError, match="two replicates"):
        bootstrap_std(lambda w: 0.0, [5], replicates=1)
    with pytest.raises(ValueError, match="two groups"):
        jackknife(0.0, np.zeros(3), np.zeros(1))
