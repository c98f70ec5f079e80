"""The Gaussian prior fitted to codes: moments, density, samples, and rejected inputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy
from codes import correlated
from hypothesis import given, settings
from hypothesis import strategies as st

from vaejax.errors import UserError
from vaejax.priors import fit_gaussian


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
    prior = fit_gaussian([codes])
    expected = scipy.stats.multivariate_normal.logpdf(
        codes, codes.mean(axis=0), np.cov(codes.T.astype(np.float64), bias=True)
    )
    np.testing.assert_allclose(prior.log_prob(jnp.asarray(codes)), expected, rtol=1e-3)


def test_gaussian_draws_have_its_moments():
    prior = fit_gaussian([correlated(2000, 3)])
    for temperature in (1.0, 0.5):
        draws = prior.sample(jax.random.key(0), 50_000, temperature)
        expected = temperature**2 * prior.cholesky @ prior.cholesky.T
        np.testing.assert_allclose(draws.mean(axis=0), prior.mean, atol=0.05)
        np.testing.assert_allclose(np.cov(draws.T), expected, atol=0.03 * np.abs(expected).max())
    frozen = np.asarray(prior.sample(jax.random.key(0), 4, 0.0))
    np.testing.assert_array_equal(frozen, np.tile(prior.mean, (4, 1)))


def test_whitening_is_inverted():
    prior = fit_gaussian([correlated(500, 8)])
    z = prior.sample(jax.random.key(0), 20)
    np.testing.assert_allclose(prior.from_noise(prior.to_noise(z)), z, atol=1e-4)


def test_dead_dimensions_do_no_harm():
    codes = correlated(100, 5)
    codes[:, 2] = 0.7
    prior = fit_gaussian([codes])
    draws = prior.sample(jax.random.key(0), 100)
    np.testing.assert_allclose(draws[:, 2], 0.7, atol=0.05)
    assert np.all(np.isfinite(prior.log_prob(jnp.asarray(codes))))
    assert np.all(np.isfinite(fit_gaussian([np.ones((5, 3))]).cholesky))


def test_more_dimensions_than_codes():
    prior = fit_gaussian([correlated(5, 20)])
    assert np.all(np.isfinite(prior.log_prob(prior.sample(jax.random.key(0), 3))))


@pytest.mark.parametrize("batches", [[], [np.ones((1, 3))], [np.ones((0, 3))]])
def test_too_few_codes(batches):
    with pytest.raises(UserError, match="at least 2 codes"):
        fit_gaussian(batches)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_codes_that_are_not_finite(bad):
    codes = correlated(10, 3)
    codes[4, 1] = bad
    with pytest.raises(UserError, match="not finite"):
        fit_gaussian([codes])
