"""The Gaussian prior fitted to codes: moments, density, samples, and rejected inputs."""

import jax
import numpy as np
import pytest
import scipy
from codes import correlated
from hypothesis import given, settings
from hypothesis import strategies as st

from vaejax.errors import UserError
from vaejax.priors import fit_gaussian
from vaejax.priors.gaussian import Gaussian

# Compiled, because each operation on its own would be a program.
log_prob, to_noise, from_noise = map(
    jax.jit, (Gaussian.log_prob, Gaussian.to_noise, Gaussian.from_noise)
)
sample = jax.jit(Gaussian.sample, static_argnums=2)


@given(cuts=st.lists(st.integers(0, 60), max_size=6), offset=st.sampled_from([0.0, 1e3]))
@settings(max_examples=30)
def test_streamed_moments_are_those_of_all_codes_at_once(cuts, offset):
    codes = np.random.default_rng(0).normal(size=(60, 4)) @ np.diag([1.0, 2.0, 0.5, 1.0]) + offset
    streamed = fit_gaussian(np.split(codes, sorted(cuts)))
    np.testing.assert_allclose(streamed.mean, codes.mean(axis=0), rtol=1e-6)
    covariance = np.cov(codes.T, bias=True)
    root = np.asarray(streamed.cholesky, np.float64)
    np.testing.assert_allclose(root @ root.T, covariance, rtol=1e-5, atol=1e-5)


def test_gaussian_density_equals_scipy():
    codes = correlated(500, 8)
    expected = scipy.stats.multivariate_normal.logpdf(
        codes, codes.mean(axis=0), np.cov(codes.T.astype(np.float64), bias=True)
    )
    np.testing.assert_allclose(log_prob(fit_gaussian([codes]), codes), expected, rtol=1e-3)


def test_gaussian_draws_have_its_moments():
    prior = fit_gaussian([correlated(2000, 3)])
    for temperature in (1.0, 0.5):
        draws = np.asarray(sample(prior, jax.random.key(0), 50_000, temperature))
        expected = temperature**2 * np.asarray(prior.cholesky) @ np.asarray(prior.cholesky).T
        np.testing.assert_allclose(draws.mean(axis=0), prior.mean, atol=0.05)
        np.testing.assert_allclose(np.cov(draws.T), expected, atol=0.03 * np.abs(expected).max())
    at_zero = sample(prior, jax.random.key(0), 50_000, 0.0)
    np.testing.assert_array_equal(at_zero, np.tile(prior.mean, (50_000, 1)))


def test_whitening_is_inverted():
    codes = correlated(500, 8)
    prior = fit_gaussian([codes])
    white = np.asarray(to_noise(prior, codes))
    np.testing.assert_allclose(np.cov(white.T, bias=True), np.eye(8), atol=1e-3)
    np.testing.assert_allclose(from_noise(prior, white), codes, atol=1e-4)


def test_a_dimension_of_equal_codes_keeps_the_density_finite():
    codes = correlated(500, 8)
    codes[:, 2] = 0.7
    prior = fit_gaussian([codes])
    noise = np.random.default_rng(1).standard_normal((500, 8), np.float32)
    np.testing.assert_allclose(from_noise(prior, noise)[:, 2], 0.7, atol=0.05)
    assert np.all(np.isfinite(log_prob(prior, codes)))
    assert np.all(np.isfinite(fit_gaussian([np.ones((5, 3))]).cholesky))


def test_more_dimensions_than_codes_keep_the_density_finite():
    codes = correlated(500, 8)
    assert np.all(np.isfinite(log_prob(fit_gaussian([codes[:4]]), codes)))


@pytest.mark.parametrize("batches", [[], [np.ones((1, 3))], [np.ones((0, 3))]])
def test_too_few_codes_are_refused(batches):
    with pytest.raises(UserError, match="at least 2 codes"):
        fit_gaussian(batches)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_codes_that_are_not_finite_are_refused(bad):
    codes = correlated(10, 3)
    codes[4, 1] = bad
    with pytest.raises(UserError, match="not finite"):
        fit_gaussian([codes])
