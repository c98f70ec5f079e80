"""Fréchet and kernel distance, neighbours, precision and recall against their references."""

import hypothesis.strategies as st
import numpy as np
import pytest
import scipy
from cpu_torchvision import skip_without_torchvision
from hypothesis import given, settings

from vaejax.metrics.frechet import frechet_distance, frechet_estimate, gaussian_distance
from vaejax.metrics.kid import kernel_distance, squared_mmd
from vaejax.metrics.manifold import manifold
from vaejax.metrics.moments import Moments, moments_of
from vaejax.metrics.neighbours import balls_around, nearest


def _features(count, features=32, seed=0, scale=1.0):
    """Rows like a network's: rectified, correlated, with variances of several magnitudes."""
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(count, features)) / np.arange(1, features + 1)[None]
    mixing = np.random.default_rng(7).normal(size=(features, features))
    return np.maximum(scale * mixed @ mixing + 0.5, 0)


A, B = _features(300), _features(250, seed=1, scale=1.3)


def _torch_fidelity(module):
    skip_without_torchvision()
    return pytest.importorskip(f"torch_fidelity.{module}")


def _moments(rows):
    return rows.mean(axis=0), np.cov(rows.T)


def test_frechet_of_moments_equals_that_of_rows_and_scipy():
    (mean_a, cov_a), (mean_b, cov_b) = _moments(A), _moments(B)
    root = scipy.linalg.sqrtm(cov_a @ cov_b)
    expected = np.sum((mean_a - mean_b) ** 2) + np.trace(cov_a + cov_b - 2 * root.real)
    assert gaussian_distance(mean_a, cov_a, mean_b, cov_b) == pytest.approx(expected, rel=1e-8)
    assert frechet_distance(A, B) == pytest.approx(expected, rel=1e-8)
    a, b = (moments_of(np.split(rows, [3, 50])) for rows in (A, B))
    assert frechet_estimate(a, b).distance == pytest.approx(expected, rel=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("counts", [(300, 250), (200, 12), (20, 9)])
def test_frechet_equals_torch_fidelity(counts):
    fid = _torch_fidelity("metric_fid")
    a, b = A[: counts[0]], B[: counts[1]]
    statistics = [dict(zip(("mu", "sigma"), _moments(rows))) for rows in (a, b)]
    theirs = fid.fid_statistics_to_metric(*statistics, verbose=False)[fid.KEY_METRIC_FID]
    # Theirs takes roots of rounding errors where there are fewer pictures than features.
    assert frechet_distance(a, b) == pytest.approx(theirs, rel=2e-6)


@pytest.mark.parametrize("counts", [(40, 30), (90, 300), (2, 2)])
def test_frechet_is_exact_where_pictures_are_fewer_than_features(counts):
    a, b = (_features(count, 160, seed) for seed, count in enumerate(counts))
    centred = [(x - x.mean(axis=0)) / np.sqrt(len(x) - 1) for x in (a, b)]
    overlap = np.linalg.svd(centred[0] @ centred[1].T, compute_uv=False).sum()
    gap = np.sum((a.mean(axis=0) - b.mean(axis=0)) ** 2)
    expected = gap + sum(np.sum(x**2) for x in centred) - 2 * overlap
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-11)


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(2, 40), shift=st.floats(-9, 9))
def test_frechet_is_invariant_under_isometries_and_symmetric(seed, count, shift):
    a, b = _features(count, 12, seed), _features(20, 12, seed + 1)
    rotation = scipy.stats.ortho_group.rvs(12, random_state=seed % 1000)
    expected = frechet_distance(a, b)
    moved = frechet_distance(a @ rotation + shift, b @ rotation + shift)
    assert moved == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(b, a) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(3 * a, 3 * b) == pytest.approx(9 * expected, rel=1e-9)


def _estimates(draw, repeats):
    """Estimates of `repeats` pairs of independent sets."""
    rng = np.random.default_rng(0)
    pairs = ([Moments.empty(6, 10).add(draw(rng, side)) for side in (0, 1)] for _ in range(repeats))
    return np.array([frechet_estimate(a, b) for a, b in pairs])


def test_frechet_deviation_and_correction():
    """Sets of 6-dimensional Gaussians, whose true distance is 6 · 0.5² + 6 · (1.5 - 1)² = 3."""

    def draw(rng, side):
        return rng.normal(size=(100, 6)) * (1 + 0.5 * side) + 0.5 * side

    distance, std, corrected = _estimates(draw, 60).T
    assert np.mean(std) == pytest.approx(np.std(distance), rel=0.3)
    error = np.std(distance) / np.sqrt(60)
    assert np.mean(distance) - 3 > 3 * error
    assert abs(np.mean(corrected) - 3) < 2.5 * error


def test_frechet_correction_of_equal_distributions():
    distance, std, corrected = _estimates(lambda rng, _: rng.normal(size=(60, 6)), 40).T
    assert np.mean(distance) > 0.3
    assert abs(np.mean(corrected)) < 0.05
    # Where all of the distance is bias, the deviation is estimated too high rather than too low.
    assert 0.9 < np.mean(std) / np.std(distance) < 2


def test_frechet_estimate_with_fewer_pictures_than_groups():
    a, b = (Moments.empty(2).add(rows[:, :2]) for rows in (A[:7], B[:5]))
    assert frechet_estimate(a, b).std > 0
    with pytest.raises(ValueError, match="two pictures"):
        frechet_estimate(a, Moments.empty(2).add(B[:2, :2]))
    with pytest.raises(ValueError, match="needs pictures"):
        single = Moments.empty(2, groups=2).merge(
            Moments(np.zeros(2), np.array([5, 0]), np.zeros((2, 2)), np.zeros((2, 2, 2)))
        )
        frechet_estimate(a, single)


@pytest.mark.slow
def test_kernel_distance_equals_torch_fidelity():
    kid, torch = _torch_fidelity("metric_kid"), pytest.importorskip("torch")
    theirs = kid.kid_features_to_metric(
        torch.from_numpy(A),
        torch.from_numpy(B),
        kid_subsets=7,
        kid_subset_size=90,
        rng_seed=3,
        verbose=False,
    )
    ours = kernel_distance(A, B, subsets=7, size=90, seed=3)
    assert ours.mean == pytest.approx(theirs[kid.KEY_METRIC_KID_MEAN], rel=1e-9)
    assert ours.std == pytest.approx(theirs[kid.KEY_METRIC_KID_STD], rel=1e-9)
    assert ours != kernel_distance(A, B, subsets=7, size=90, seed=4)


def test_squared_mmd_of_all_pictures():
    """All pairs, in sets of different size that span several blocks."""
    a, b = np.tile(A, (2, 1)), np.tile(B, (3, 1))
    within_a, within_b, between = ((x @ y.T / 32 + 1) ** 3 for x, y in ((a, a), (b, b), (a, b)))
    expected = (
        within_a[~np.eye(600, dtype=bool)].mean()
        + within_b[~np.eye(750, dtype=bool)].mean()
        - 2 * between.mean()
    )
    assert squared_mmd(a, b) == pytest.approx(expected, rel=1e-9)


def test_squared_mmd_has_no_bias():
    rng = np.random.default_rng(0)
    values = [squared_mmd(*rng.normal(size=(2, 20, 5))) for _ in range(400)]
    assert abs(np.mean(values)) < 3 * np.std(values) / 20
    assert min(values) < 0


def test_kernel_distance_needs_enough_pictures():
    with pytest.raises(ValueError, match="subsets of 1000 pictures need as many, got 300 and 250"):
        kernel_distance(A, B)
    with pytest.raises(ValueError, match="two pictures"):
        squared_mmd(A[:1], B)
    with pytest.raises(ValueError, match="not finite"):
        squared_mmd(A + np.inf, B)


@pytest.mark.parametrize("exclude_self", [False, True])
@pytest.mark.parametrize("pairs", [1, 1000, 1 << 22])
def test_neighbours_equal_scikit_learn(monkeypatch, exclude_self, pairs):
    sklearn = pytest.importorskip("sklearn.neighbors", reason="needs scikit-learn")
    monkeypatch.setattr("vaejax.metrics.neighbours._PAIRS", pairs)
    search = sklearn.NearestNeighbors(n_neighbors=4, algorithm="kd_tree").fit(A)
    distances, indices = search.kneighbors(None if exclude_self else B)
    ours = nearest(A, A, 4, exclude_self=True) if exclude_self else nearest(B, A, 4)
    np.testing.assert_array_equal(ours.indices, indices)
    np.testing.assert_allclose(ours.distances, distances, rtol=1e-12)


def test_duplicates_are_at_distance_zero():
    """Exact and close duplicates are told apart where the products of large rows cancel."""
    rows = (1e4 + A[:60]).astype(np.float32)
    near = rows.astype(np.float64)
    near[:, 0] += 1e-6 * np.arange(60)
    shuffled = np.random.default_rng(0).permutation(60)
    equal = nearest(rows, rows[shuffled], 1)
    np.testing.assert_array_equal(equal.distances, 0)
    np.testing.assert_array_equal(shuffled[equal.indices[:, 0]], np.arange(60))
    close = nearest(np.tile(near[:1], (60, 1)) + 0, np.concatenate([near, near[:1]]), 2)
    np.testing.assert_array_equal(close.indices, [[0, 60]] * 60)
    # A ladder of rows a millionth apart, far from the origin: order and distances are exact.
    ladder = np.tile(near[:1], (9, 1))
    ladder[:, 0] += 1e-6 * np.arange(9)[::-1]
    found = nearest(near[:1], np.concatenate([-near, ladder]), 9)
    np.testing.assert_array_equal(found.indices[0], 60 + np.arange(9)[::-1])
    np.testing.assert_allclose(found.distances[0], 1e-6 * np.arange(9), atol=1e-11)
    # A row's duplicate is its neighbour; the row itself is not.
    twice = nearest(np.tile(rows, (2, 1)), np.tile(rows, (2, 1)), 1, exclude_self=True)
    np.testing.assert_array_equal(twice.distances, 0)
    np.testing.assert_array_equal(twice.indices[:, 0], (np.arange(120) + 60) % 120)


@settings(max_examples=40)
@given(seed=st.integers(0, 1000), k=st.integers(1, 6), levels=st.integers(1, 4))
def test_neighbours_among_many_ties(seed, k, levels):
    """Whole numbers have many equal distances; the first rows win."""
    rng = np.random.default_rng(seed)
    rows, others = rng.integers(0, levels, (7, 3)), rng.integers(0, levels, (12, 3))
    squares = np.sum((rows[:, None] - others[None]) ** 2, axis=-1)
    order = np.argsort(squares, axis=1, kind="stable")[:, :k]
    found = nearest(rows, others, k)
    np.testing.assert_array_equal(found.indices, order)
    np.testing.assert_array_equal(found.distances, np.sqrt(np.take_along_axis(squares, order, 1)))
    radii = np.sqrt(rng.integers(0, 6, 12))
    expected = (np.sqrt(squares) < radii[None]).sum(axis=1)
    np.testing.assert_array_equal(balls_around(rows, others, radii), expected)


def test_too_few_neighbours():
    with pytest.raises(ValueError, match="3 neighbours are wanted among 3 rows"):
        nearest(A[:3], A[:3], 3, exclude_self=True)
    with pytest.raises(ValueError, match="0 neighbours"):
        nearest(A, B, 0)


@pytest.mark.parametrize("k", [1, 5])
@pytest.mark.parametrize("pairs", [2000, 1 << 22])
def test_manifold_equals_prdc(monkeypatch, k, pairs):
    prdc = pytest.importorskip("prdc", reason="needs prdc")
    monkeypatch.setattr("vaejax.metrics.neighbours._PAIRS", pairs)
    generated = _features(250, seed=1, scale=0.8) + 0.3
    theirs = prdc.compute_prdc(real_features=A, fake_features=generated, nearest_k=k)
    ours = manifold(A, generated, k=k).estimates()
    assert {name: estimate.value for name, estimate in ours.items()} == pytest.approx(theirs)
    # All four say something of these sets.
    assert min(theirs.values()) > 0.04 and max(theirs.values()) < 0.9
    for name in ("precision", "recall", "coverage"):
        share, std = ours[name]
        count = 250 if name == "precision" else 300
        assert std == pytest.approx(np.sqrt(share * (1 - share) / count))


def test_manifold_of_a_collapsed_and_of_a_perfect_model():
    collapsed = manifold(A, np.tile(A[:1], (40, 1))).estimates()
    assert collapsed["precision"].value == 1
    assert collapsed["recall"].value == 0
    # The picture lies in the balls of few others.
    assert 0 < collapsed["coverage"].value < 0.2
    memorised = manifold(A, A).estimates()
    assert [memorised[name].value for name in ("precision", "recall", "coverage")] == [1, 1, 1]
    far = manifold(A, A + 1000).estimates()
    assert [estimate.value for estimate in far.values()] == [0, 0, 0, 0]


def test_manifold_needs_neighbours():
    with pytest.raises(ValueError, match="5 neighbours are wanted among 5 rows"):
        manifold(A, B[:5])
