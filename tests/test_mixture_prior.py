"""Tests the mixture of Gaussians that EM fits to codes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy
from codes import correlated
from jax.scipy.special import logsumexp

from vaejax.priors import Mixture, fit_gaussian, fit_mixture
from vaejax.priors.mixture import em_step, initial_mixture, penalised_log_likelihood


def _three_clusters(count, seed=0):
    """Returns samples of a mixture of three different 2-D Gaussians, and the mixture."""
    mixture = Mixture(
        jnp.log(jnp.asarray([0.5, 0.3, 0.2])),
        jnp.asarray([[-4.0, 0.0], [4.0, 1.0], [0.0, 6.0]]),
        jnp.asarray(
            [[[1.0, 0.0], [0.5, 0.5]], [[0.4, 0.0], [0.0, 1.5]], [[1.0, 0.0], [-0.9, 0.3]]]
        ),
    )
    return mixture.sample(jax.random.key(seed), count), mixture


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
    codes = jnp.asarray(correlated(300, 4))
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
    # Three distinct codes for eight components: most components start without codes.
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
