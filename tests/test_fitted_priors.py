"""The priors fitted to codes: moments, EM, flow matching, and their files."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.scipy.special import logsumexp

from vaejax.errors import UserError
from vaejax.priors import (
    Gaussian,
    Mixture,
    fit_flow_matching,
    fit_gaussian,
    fit_mixture,
    fit_prior,
    load_prior,
    save_prior,
)
from vaejax.priors.mixture import em_step, initial_mixture, penalised_log_likelihood


def _correlated(count, size, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(count, size)) @ rng.normal(size=(size, size)) + 3).astype(np.float32)


def _three_clusters(count, seed=0):
    """Codes of three unlike Gaussians in the plane, and the mixture they come from."""
    mixture = Mixture(
        jnp.log(jnp.asarray([0.5, 0.3, 0.2])),
        jnp.asarray([[-4.0, 0.0], [4.0, 1.0], [0.0, 6.0]]),
        jnp.asarray(
            [[[1.0, 0.0], [0.5, 0.5]], [[0.4, 0.0], [0.0, 1.5]], [[1.0, 0.0], [-0.9, 0.3]]]
        ),
    )
    return mixture.sample(jax.random.key(seed), count), mixture


def _energy_distance(a, b):
    """Székely's 2 E|a-b| - E|a-a'| - E|b-b'|: zero for equal distributions."""

    def mean_gap(a, b):
        return np.sqrt(((a[:, None] - b[None]) ** 2).sum(axis=-1)).mean()

    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return 2 * mean_gap(a, b) - mean_gap(a, a) - mean_gap(b, b)


# --- Gaussian


@given(cuts=st.lists(st.integers(0, 60), max_size=6), offset=st.sampled_from([0.0, 1e3]))
@settings(max_examples=30, deadline=None)
def test_streamed_moments_are_those_of_all_codes_at_once(cuts, offset):
    codes = np.random.default_rng(0).normal(size=(60, 4)) @ np.diag([1.0, 2.0, 0.5, 1.0]) + offset
    streamed = fit_gaussian(np.split(codes, sorted(cuts)))
    np.testing.assert_allclose(streamed.mean, codes.mean(axis=0), rtol=1e-6)
    covariance = np.cov(codes.T, bias=True)
    root = np.asarray(streamed.cholesky, np.float64)
    np.testing.assert_allclose(root @ root.T, covariance, rtol=1e-5, atol=1e-5)


def test_gaussian_density_equals_scipy():
    codes = _correlated(500, 8)
    prior = fit_gaussian([codes])
    expected = scipy.stats.multivariate_normal.logpdf(
        codes, codes.mean(axis=0), np.cov(codes.T.astype(np.float64), bias=True)
    )
    np.testing.assert_allclose(prior.log_prob(jnp.asarray(codes)), expected, rtol=1e-3)


def test_gaussian_draws_have_its_moments():
    prior = fit_gaussian([_correlated(2000, 3)])
    for temperature in (1.0, 0.5):
        draws = prior.sample(jax.random.key(0), 50_000, temperature)
        expected = temperature**2 * prior.cholesky @ prior.cholesky.T
        np.testing.assert_allclose(draws.mean(axis=0), prior.mean, atol=0.05)
        np.testing.assert_allclose(np.cov(draws.T), expected, atol=0.03 * np.abs(expected).max())
    frozen = np.asarray(prior.sample(jax.random.key(0), 4, 0.0))
    np.testing.assert_array_equal(frozen, np.tile(prior.mean, (4, 1)))


def test_whitening_is_inverted():
    prior = fit_gaussian([_correlated(500, 8)])
    z = prior.sample(jax.random.key(0), 20)
    np.testing.assert_allclose(prior.from_noise(prior.to_noise(z)), z, atol=1e-4)


def test_dead_dimensions_do_no_harm():
    codes = _correlated(100, 5)
    codes[:, 2] = 0.7
    prior = fit_gaussian([codes])
    draws = prior.sample(jax.random.key(0), 100)
    np.testing.assert_allclose(draws[:, 2], 0.7, atol=0.05)
    assert np.all(np.isfinite(prior.log_prob(jnp.asarray(codes))))
    assert np.all(np.isfinite(fit_gaussian([np.ones((5, 3))]).cholesky))


def test_more_dimensions_than_codes():
    prior = fit_gaussian([_correlated(5, 20)])
    assert np.all(np.isfinite(prior.log_prob(prior.sample(jax.random.key(0), 3))))


@pytest.mark.parametrize("batches", [[], [np.ones((1, 3))], [np.ones((0, 3))]])
def test_too_few_codes(batches):
    with pytest.raises(UserError, match="at least two codes"):
        fit_gaussian(batches)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_codes_that_are_not_finite(bad):
    codes = _correlated(10, 3)
    codes[4, 1] = bad
    with pytest.raises(UserError, match="not finite"):
        fit_gaussian([codes])


# --- Mixture


def test_mixture_density_equals_scipy():
    codes, mixture = _three_clusters(200)
    terms = [
        np.exp(w) * scipy.stats.multivariate_normal.pdf(codes, m, np.asarray(root @ root.T))
        for w, m, root in zip(mixture.log_weights, mixture.means, mixture.choleskys)
    ]
    np.testing.assert_allclose(mixture.log_prob(codes), np.log(sum(terms)), rtol=1e-4, atol=1e-4)


def test_mixture_draws_have_its_moments():
    draws, mixture = _three_clusters(100_000)
    weights = np.exp(np.asarray(mixture.log_weights))
    mean = weights @ np.asarray(mixture.means)
    np.testing.assert_allclose(draws.mean(axis=0), mean, atol=0.05)
    second = sum(
        w * (root @ root.T + np.outer(m, m))
        for w, m, root in zip(weights, np.asarray(mixture.means), np.asarray(mixture.choleskys))
    )
    np.testing.assert_allclose(np.cov(draws.T), second - np.outer(mean, mean), atol=0.15)
    frozen = np.asarray(mixture.sample(jax.random.key(0), 50, 0.0))
    assert {tuple(row) for row in frozen} == {tuple(row) for row in np.asarray(mixture.means)}


def test_one_component_is_the_gaussian():
    codes = jnp.asarray(_correlated(300, 4))
    mixture = fit_mixture(codes, jax.random.key(0), components=1)
    np.testing.assert_allclose(
        mixture.log_prob(codes), fit_gaussian([codes]).log_prob(codes), atol=5e-3
    )


@pytest.mark.parametrize("seed", range(3))
def test_em_never_loses(seed):
    codes, _ = _three_clusters(1000)
    white = fit_gaussian([codes]).to_noise(codes)
    strength = jnp.float32(2.0)
    mixture = initial_mixture(white, jax.random.key(seed), 5, strength)
    history = []
    for _ in range(40):
        mixture, objective = em_step(mixture, white, strength)
        history.append(float(objective))
    assert np.diff(history).min() > -1e-5
    assert history[-1] > history[0] + 0.01


def test_penalty_is_that_of_the_pseudo_codes():
    codes, mixture = _three_clusters(100)
    log_prob = mixture.log_prob(codes)
    strength = jnp.float32(7.0)
    pseudo = jax.random.normal(jax.random.key(5), (200_000, 2))
    expected = log_prob.mean() + 7 / 100 * mixture.joint_log_prob(pseudo).mean(axis=1).sum()
    actual = penalised_log_likelihood(mixture, log_prob, strength)
    assert float(actual) == pytest.approx(float(expected), rel=5e-3)


def test_em_recovers_a_mixture():
    codes, truth = _three_clusters(5000)
    fitted = fit_mixture(codes, jax.random.key(1), components=3, pseudo_count=1.0)
    order = np.argsort(fitted.means[:, 0])[[0, 2, 1]]
    np.testing.assert_allclose(np.exp(fitted.log_weights)[order], [0.5, 0.3, 0.2], atol=0.02)
    np.testing.assert_allclose(fitted.means[order], truth.means, atol=0.12)
    for root, true_root in zip(fitted.choleskys[order], truth.choleskys):
        np.testing.assert_allclose(root @ root.T, true_root @ true_root.T, atol=0.2)
    assert float(fitted.log_prob(codes).mean()) > float(truth.log_prob(codes).mean()) - 0.01


def test_superfluous_components_stay_regular():
    # Three distinct codes for eight components: most are left with none.
    codes = jnp.asarray(np.repeat(np.eye(3, dtype=np.float32), 20, axis=0))
    mixture = fit_mixture(codes, jax.random.key(0), components=8)
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(mixture))
    assert float(logsumexp(mixture.log_weights)) == pytest.approx(0, abs=1e-5)
    assert np.all(np.isfinite(mixture.log_prob(codes)))


def test_em_stops_when_nothing_is_gained():
    told = []
    codes, _ = _three_clusters(500)
    fit_mixture(codes, jax.random.key(0), components=1, progress=lambda *now: told.append(now))
    assert len(told) < 5
    assert told[0][:2] == (1, 100)


# --- Flow matching


def _fit_small(codes, steps):
    return fit_flow_matching(
        codes, jax.random.key(0), steps=steps, batch_size=256, width=64, blocks=2
    )


@pytest.fixture(scope="module")
def moons():
    """Two interleaved half circles, and the flow fitted to them."""
    angle, noise_a, noise_b = np.random.default_rng(0).normal(size=(3, 4000))
    angle = np.random.default_rng(1).uniform(0, np.pi, 4000)
    upper = np.arange(4000) % 2 == 0
    x = np.where(upper, np.cos(angle), 1 - np.cos(angle)) + 0.08 * noise_a
    y = np.where(upper, np.sin(angle), 0.5 - np.sin(angle)) + 0.08 * noise_b
    codes = jnp.asarray(np.stack([x, y], axis=1), jnp.float32)
    return codes, _fit_small(codes, 1500)


def test_untrained_flow_is_the_gaussian():
    codes = jnp.asarray(_correlated(200, 3))
    prior = _fit_small(codes, 0)
    gaussian = fit_gaussian([codes])
    np.testing.assert_allclose(prior.log_prob(codes[:20]), gaussian.log_prob(codes[:20]), atol=1e-3)
    key = jax.random.key(2)
    np.testing.assert_allclose(prior.sample(key, 20, 0.7), gaussian.sample(key, 20, 0.7), atol=1e-3)


def test_flow_trained_on_a_gaussian_has_its_density():
    codes = jnp.asarray(_correlated(5000, 3))
    prior = _fit_small(codes, 300)
    assert any(np.any(x != 0) for x in jax.tree.leaves(prior.params))
    truth = fit_gaussian([codes]).log_prob(codes[:300])
    error = np.asarray(prior.log_prob(codes[:300]) - truth)
    assert np.abs(error).mean() < 0.1
    assert abs(error.mean()) < 0.05


def test_flow_draws_moons(moons):
    codes, prior = moons
    draws = prior.sample(jax.random.key(5), 1500)
    np.testing.assert_allclose(draws.mean(axis=0), codes.mean(axis=0), atol=0.07)
    np.testing.assert_allclose(np.cov(draws.T), np.cov(codes.T), atol=0.07)
    gaussian = prior.gaussian.sample(jax.random.key(5), 1500)
    assert _energy_distance(draws, codes[:1500]) < 0.25 * _energy_distance(gaussian, codes[:1500])


def test_flow_density_of_moons_integrates_to_one(moons):
    codes, prior = moons
    low, high = codes.min(axis=0) - 0.4, codes.max(axis=0) + 0.4
    axes = [np.linspace(a, b, 70) for a, b in zip(low, high)]
    grid = jnp.asarray(np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 2), jnp.float32)
    density = np.exp(jax.jit(lambda prior, z: prior.log_prob(z))(prior, grid))
    cell = np.prod([axis[1] - axis[0] for axis in axes])
    assert density.sum() * cell == pytest.approx(1, abs=0.05)
    assert float(prior.log_prob(codes[:200]).mean()) > float(
        prior.gaussian.log_prob(codes[:200]).mean()
    )


def test_flow_draws_at_temperature_zero_are_all_one(moons):
    draws = np.asarray(moons[1].sample(jax.random.key(0), 5, 0.0))
    np.testing.assert_allclose(draws, np.tile(draws[:1], (5, 1)), atol=1e-5)


def test_flow_training_follows_its_key_alone():
    codes = jnp.asarray(_correlated(100, 2))
    told = []

    def fit(**kwargs):
        return fit_flow_matching(
            codes, jax.random.key(0), steps=130, batch_size=16, width=8, blocks=1, **kwargs
        )

    first, second = fit(progress=lambda *now: told.append(now)), fit()
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second)):
        np.testing.assert_array_equal(a, b)
    assert [now[:2] for now in told] == [(100, 130), (130, 130)]
    assert all(np.isfinite(now[2]) for now in told)


# --- By name, and on disk


def _small_prior(name):
    codes = jnp.asarray(_correlated(60, 3))
    key = jax.random.key(0)
    if name == "gaussian":
        return fit_gaussian([codes])
    if name == "mixture":
        return fit_mixture(codes, key, components=2, steps=3)
    return fit_flow_matching(codes, key, steps=2, batch_size=8, width=8, blocks=2)


@pytest.mark.parametrize("name", ["gaussian", "mixture", "flow_matching"])
def test_file_keeps_every_bit(name, tmp_path):
    prior = _small_prior(name)
    path = tmp_path / "priors" / f"{name}.npz"
    meta = {"step": 12, "codes": 60, "note": "ü"}
    save_prior(path, prior, {"step": 11})
    save_prior(path, prior, meta)
    loaded, loaded_meta = load_prior(path)
    assert loaded_meta == meta
    assert jax.tree.structure(loaded) == jax.tree.structure(prior)
    for a, b in zip(jax.tree.leaves(loaded), jax.tree.leaves(prior)):
        assert isinstance(a, jax.Array)
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    np.testing.assert_array_equal(
        loaded.sample(jax.random.key(0), 3), prior.sample(jax.random.key(0), 3)
    )


def test_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "prior.npz"
    save_prior(path, _small_prior("gaussian"), {"step": 1})
    with pytest.raises(TypeError):
        save_prior(path, _small_prior("gaussian"), {"step": object()})
    assert load_prior(path)[1] == {"step": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match="no fitted prior at"):
        load_prior(tmp_path / "prior.npz")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_truncated_file(share, tmp_path):
    path = tmp_path / "prior.npz"
    save_prior(path, _small_prior("mixture"), {"step": 1})
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(UserError, match="damaged") as raised:
        load_prior(path)
    assert "\n" not in str(raised.value)


def test_altered_byte(tmp_path):
    path = tmp_path / "prior.npz"
    prior = _small_prior("gaussian")
    save_prior(path, prior, {"step": 1})
    whole = bytearray(path.read_bytes())
    whole[whole.index(np.asarray(prior.cholesky).tobytes()) + 5] ^= 1
    path.write_bytes(whole)
    with pytest.raises(UserError, match="damaged"):
        load_prior(path)


@pytest.mark.parametrize(
    "arrays",
    [
        {"mean": np.zeros(3)},
        {"header": np.array("{}")},
        {"header": np.array('{"kind": "gaussian", "meta": {}}'), "mean": np.zeros(3, np.float32)},
        {"header": np.array('{"kind": "vamp", "meta": {}}')},
        {"header": np.array("[]")},
        {"header": np.array([{}], dtype=object)},
    ],
)
def test_file_of_something_else(arrays, tmp_path):
    np.savez(tmp_path / "other.npz", **arrays)
    with pytest.raises(UserError, match="no fitted prior"):
        load_prior(tmp_path / "other.npz")


def test_unknown_name():
    with pytest.raises(UserError, match="gaussian, mixture, flow_matching"):
        fit_prior("vamp", _correlated(10, 2), jax.random.key(0))


def test_fit_by_name_says_how_far_it_is():
    lines = []
    codes = _correlated(200, 2)
    assert isinstance(fit_prior("gaussian", codes, jax.random.key(0), lines.append), Gaussian)
    assert lines == []
    assert isinstance(fit_prior("mixture", codes, jax.random.key(0), lines.append), Mixture)
    assert all(line.startswith("prior mixture: step ") for line in lines)
