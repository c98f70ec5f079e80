"""Tests the mixture of Gaussians that EM fits to codes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy
from codes import correlated

from vaejax.priors import Gaussian, Mixture, fit_gaussian, fit_mixture
from vaejax.priors.mixture import em_step, initial_mixture, penalised_log_likelihood

# Compiled, because each operation on its own would be a program.
log_prob = jax.jit(Mixture.log_prob)
sample = jax.jit(Mixture.sample, static_argnums=2)
COUNT = 5000


@pytest.fixture(scope="module")
def mixture():
    """Returns a mixture of three different 2-D Gaussians."""
    roots = [[[1.0, 0.0], [0.5, 0.5]], [[0.4, 0.0], [0.0, 1.5]], [[1.0, 0.0], [-0.9, 0.3]]]
    means = [[-4.0, 0.0], [4.0, 1.0], [0.0, 6.0]]
    arrays = np.log(np.float32([0.5, 0.3, 0.2])), np.float32(means), np.float32(roots)
    return Mixture(*jax.device_put(arrays))


@pytest.fixture(scope="module")
def codes(mixture):
    """Returns samples of the mixture."""
    return sample(mixture, jax.random.key(0), COUNT)


def _parts(mixture):
    """Returns weights, means and covariances."""
    roots = np.asarray(mixture.choleskys)
    return np.exp(mixture.log_weights), np.asarray(mixture.means), roots @ roots.swapaxes(1, 2)


def test_mixture_density_equals_scipy(codes, mixture):
    terms = [
        weight * scipy.stats.multivariate_normal.pdf(codes, mean, covariance)
        for weight, mean, covariance in zip(*_parts(mixture))
    ]
    np.testing.assert_allclose(log_prob(mixture, codes), np.log(sum(terms)), rtol=1e-4, atol=1e-4)


def test_mixture_draws_have_its_moments(mixture):
    draws = np.asarray(sample(mixture, jax.random.key(0), 100_000))
    weights, means, covariances = _parts(mixture)
    mean = weights @ means
    np.testing.assert_allclose(draws.mean(axis=0), mean, atol=0.05)
    second = np.einsum("k,kij->ij", weights, covariances) + means.T * weights @ means
    np.testing.assert_allclose(np.cov(draws.T), second - np.outer(mean, mean), atol=0.15)


def test_mixture_draws_at_temperature_zero_are_its_means(mixture):
    draws = np.asarray(sample(mixture, jax.random.key(0), COUNT, 0.0))
    assert {tuple(row) for row in draws} == {tuple(row) for row in np.asarray(mixture.means)}


def test_one_component_is_the_gaussian_and_em_stops_when_nothing_is_gained():
    codes = jnp.asarray(correlated(300, 4))
    steps = []
    mixture = fit_mixture(
        codes, jax.random.key(0), components=1, progress=lambda *step: steps.append(step)
    )
    gaussian = jax.jit(Gaussian.log_prob)(fit_gaussian([codes]), codes)
    np.testing.assert_allclose(log_prob(mixture, codes), gaussian, atol=5e-3)
    assert len(steps) < 5
    assert steps[0][:2] == (1, 100)


@pytest.mark.parametrize("seed", range(3))
def test_em_never_lowers_the_objective(seed, codes):
    white = fit_gaussian([codes]).to_noise(codes)
    strength = jnp.float32(2.0)
    mixture = initial_mixture(white, jax.random.key(seed), 3, strength)
    history = []
    for _ in range(20):
        mixture, objective = em_step(mixture, white, strength)
        history.append(float(objective))
    assert np.diff(history).min() > -1e-5
    assert history[-1] > history[0] + 0.01


def test_penalty_is_that_of_the_pseudo_codes(codes, mixture):
    log_probs = log_prob(mixture, codes)
    strength = jnp.float32(COUNT / 14)
    pseudo = np.random.default_rng(5).standard_normal((200_000, 2), np.float32)
    joint = np.asarray(jax.jit(Mixture.joint_log_prob)(mixture, pseudo), np.float64)
    expected = np.asarray(log_probs).mean() + joint.mean(axis=1).sum() / 14
    actual = jax.jit(penalised_log_likelihood)(mixture, log_probs, strength)
    assert float(actual) == pytest.approx(float(expected), rel=5e-3)


def test_em_recovers_a_mixture(codes, mixture):
    fitted = fit_mixture(codes, jax.random.key(1), components=3, pseudo_count=1.0)
    weights, means, covariances = _parts(fitted)
    _, true_means, true_covariances = _parts(mixture)
    order = np.argsort(means[:, 0])[[0, 2, 1]]
    np.testing.assert_allclose(weights[order], [0.5, 0.3, 0.2], atol=0.02)
    np.testing.assert_allclose(means[order], true_means, atol=0.12)
    np.testing.assert_allclose(covariances[order], true_covariances, atol=0.2)
    of_fitted, of_true = (np.asarray(log_prob(prior, codes)).mean() for prior in (fitted, mixture))
    assert of_fitted > of_true - 0.01


def test_components_without_codes_stay_regular():
    # Three distinct codes for eight components: most components start without codes.
    codes = jnp.asarray(np.repeat(np.eye(3, dtype=np.float32), 20, axis=0))
    mixture = fit_mixture(codes, jax.random.key(0), components=8)
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(mixture))
    assert np.exp(np.asarray(mixture.log_weights)).sum() == pytest.approx(1, abs=1e-5)
    assert np.all(np.isfinite(log_prob(mixture, codes)))
