"""Likelihoods sum to one, match independent references, and have finite gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import tiny

from vaejax.likelihoods import (
    LEVEL,
    MAX_LOG_SCALE,
    MIN_LOG_SCALE,
    Bernoulli,
    DiscretizedGaussian,
    DiscretizedLogistic,
    Pixels,
    bound_log_scale,
    build_likelihood,
    to_levels,
    to_picture,
    to_unit,
)
from vaejax.models import Inference
from vaejax.tasks.vae.evidence import Evidence, sums_of

LIKELIHOODS = {
    "logistic": DiscretizedLogistic(),
    "gaussian": DiscretizedGaussian(),
    "bernoulli": Bernoulli(),
}
LEVELS = np.arange(256)
ALL_LEVELS = LEVELS.astype(np.uint8).reshape(256, 1, 1, 1)
locations = st.floats(-3.0, 3.0, width=32)
log_scales = st.floats(MIN_LOG_SCALE, MAX_LOG_SCALE)


@functools.partial(jax.jit, static_argnums=0)
def _log_masses_and_slopes(name: str, *parameters: np.ndarray) -> tuple:
    def log_masses(*parameters: jax.Array) -> jax.Array:
        return LIKELIHOODS[name].log_prob(jnp.asarray(ALL_LEVELS), Pixels(*parameters))

    each = [jnp.broadcast_to(parameter, ALL_LEVELS.shape) for parameter in parameters]
    masses, slopes_of = jax.vjp(log_masses, *each)
    return masses, *(slopes.ravel() for slopes in slopes_of(jnp.ones_like(masses)))


def log_masses_and_slopes(name: str, location: float, log_scale: float) -> list[np.ndarray]:
    """Returns the log-mass of each level, and its derivatives by location and log-scale."""
    results = _log_masses_and_slopes(name, np.float32(location), np.float32(log_scale))
    return [np.asarray(result, np.float64) for result in results]


def log_masses(name: str, location: float, log_scale: float) -> np.ndarray:
    return log_masses_and_slopes(name, location, log_scale)[0]


@functools.partial(jax.jit, static_argnums=0)
def moments_of(name: str, *parameters: np.ndarray) -> tuple[jax.Array, jax.Array]:
    """Returns the mean as a level, and the variance in squared levels, of one value."""
    one = [jnp.reshape(parameter, (1, 1, 1, 1)) for parameter in parameters]
    mean, variance = LIKELIHOODS[name].moments(Pixels(*one))
    return to_levels(mean)[0, 0, 0, 0], variance[0, 0, 0, 0] / LEVEL**2


@pytest.mark.parametrize("name", LIKELIHOODS)
@settings(max_examples=60)
@given(location=locations, log_scale=log_scales)
def test_masses_sum_to_one_and_their_slopes_are_finite(name, location, log_scale):
    scale = 20.0 if name == "bernoulli" else 1.0
    masses, *slopes = log_masses_and_slopes(name, scale * location, log_scale)
    np.testing.assert_allclose(np.exp(masses).sum(), 1.0, atol=1e-4)
    assert np.all(np.isfinite(slopes))


def standard_edges(location: float, log_scale: float) -> tuple[np.ndarray, np.float64]:
    """Returns the edges of the levels in units of the scale from the location, and the scale."""
    edges = (np.arange(257) - 0.5) / 127.5 - 1.0
    edges[0], edges[-1] = -np.inf, np.inf
    scale = np.exp(np.float64(np.float32(log_scale)))
    return (edges - np.float64(np.float32(location))) / scale, scale


@pytest.mark.parametrize("name", ["logistic", "gaussian"])
@settings(max_examples=40)
@given(location=st.floats(-1.0, 1.0, width=32), log_scale=st.floats(-4.0, 0.0))
def test_masses_and_slopes_match_scipy(name, location, log_scale):
    distribution = {"logistic": scipy.stats.logistic, "gaussian": scipy.stats.norm}[name]
    edges, scale = standard_edges(location, log_scale)
    masses = np.diff(distribution.cdf(edges))
    found, by_location, by_log_scale = log_masses_and_slopes(name, location, log_scale)
    likely = masses > 1e-10  # smaller ones are lost to rounding in scipy's CDFs
    np.testing.assert_allclose(found[likely], np.log(masses[likely]), atol=2e-3)
    # With edges a < b in units of the scale, log(F(b) - F(a)) has the derivatives
    # (f(a) - f(b)) / (F(b) - F(a)) / scale by the location and
    # (a f(a) - b f(b)) / (F(b) - F(a)) by the log-scale.
    likely = masses > 1e-6
    density = distribution.pdf(edges)
    moment = np.where(np.isfinite(edges), edges, 0.0) * density
    for slopes, values in ((by_location * scale, density), (by_log_scale, moment)):
        expected = -np.diff(values)[likely] / masses[likely]
        np.testing.assert_allclose(slopes[likely], expected, rtol=5e-3, atol=5e-3)


@settings(max_examples=30)
@given(location=st.floats(-1.0, 1.0, width=32), log_scale=st.floats(-4.0, 0.0))
def test_logistic_slopes_match_the_closed_form(location, log_scale):
    edges, scale = standard_edges(location, log_scale)
    _, slopes, _ = log_masses_and_slopes("logistic", location, log_scale)
    # d/dm log(F(b) - F(a)) = (F(a) + F(b) - 1) / scale, because F' = F (1 - F) / scale.
    below = scipy.special.expit(edges)
    np.testing.assert_allclose(slopes, (below[1:] + below[:-1] - 1.0) / scale, atol=1e-3 / scale)


@given(logit=st.floats(-60.0, 60.0, width=32))
@settings(max_examples=40)
def test_bernoulli_matches_its_definition(logit):
    tilted = np.float64(logit) * LEVELS / 255.0
    expected = tilted - scipy.special.logsumexp(tilted)
    found, slopes, _ = log_masses_and_slopes("bernoulli", logit, 0.0)
    np.testing.assert_allclose(found, expected, atol=2e-4)
    masses = np.exp(expected)
    mean = (masses * LEVELS).sum()
    variance = (masses * (LEVELS - mean) ** 2).sum()
    found_mean, found_variance = moments_of("bernoulli", np.float32(logit), np.float32(0.0))
    np.testing.assert_allclose(found_mean, mean, rtol=1e-3, atol=0.05)
    np.testing.assert_allclose(found_variance, variance, rtol=0.03, atol=0.02)
    np.testing.assert_allclose(slopes, (LEVELS - mean) / 255, atol=1e-3)


@pytest.mark.parametrize("name", ["logistic", "gaussian"])
def test_variance_is_the_distributions_own(name):
    # The scale is much larger than a level and much smaller than the range of values, so that
    # discretisation hardly changes the variance.
    log_scale = np.float32(np.log(8 * LEVEL))
    masses = np.exp(log_masses(name, 0.0, log_scale))
    mean, variance = moments_of(name, np.float32(0.0), log_scale)
    np.testing.assert_allclose(mean, 127.5, rtol=1e-5)
    np.testing.assert_allclose((masses * (LEVELS - 127.5) ** 2).sum(), variance, rtol=0.01)


@pytest.mark.parametrize("name", ["logistic", "mixture"])
@pytest.mark.parametrize("bits", [5, 8])
def test_the_config_says_how_many_bits_count(name, bits):
    assert build_likelihood(tiny(likelihood={"name": name, "bits": bits})).bits == bits


def test_scaling_is_inverted():
    unit = jax.jit(to_unit)(ALL_LEVELS)
    np.testing.assert_allclose(np.ravel(unit), np.linspace(-1, 1, 256), atol=1e-6)
    np.testing.assert_allclose(jax.jit(to_levels)(unit), ALL_LEVELS, atol=1e-4)
    shown = jax.jit(functools.partial(to_picture, DiscretizedLogistic()))(Pixels(unit, unit))
    np.testing.assert_array_equal(shown, ALL_LEVELS)


@pytest.mark.parametrize("bits", [5, 8])
def test_samples_are_as_far_from_their_mean_as_the_variance_says(bits):
    """For samples of the likelihood, `squared_z` is 1 on average, for any number of bits.

    `log_std` is that of a logistic distribution, but for the width of a level.
    """
    rng = np.random.default_rng(0)
    location, scale, top = 0.1, 0.08, 2**bits - 1
    drawn = np.clip(rng.logistic(location, scale, (4, 64, 64, 1)), -1.0, 1.0)
    images = np.uint8(np.round((drawn + 1.0) * top / 2)) << (8 - bits)
    likelihood = DiscretizedLogistic(bits)

    @jax.jit
    def sums(images):
        pixels = Pixels(jnp.full(images.shape, location), jnp.full((1, 1, 1, 1), np.log(scale)))
        inference = Inference(jnp.zeros((4, 1)), jnp.zeros(4), pixels, None)
        terms = Evidence(likelihood.log_prob(images, pixels), inference)
        return sums_of(terms, likelihood, images, jnp.ones(4))

    found = sums(images)
    np.testing.assert_allclose(found.squared_z / found.count, 1.0, rtol=0.05)
    std = scale * np.pi / np.sqrt(3.0)
    np.testing.assert_allclose(found.log_std / found.count, np.log(std), atol=0.02)


def test_a_scale_at_its_limit_finds_back():
    def loss(raw):
        return jnp.sum((bound_log_scale(raw) - jnp.asarray([-3.0, -3.0, -50.0, 50.0])) ** 2)

    raw = np.float32([MIN_LOG_SCALE - 1, MAX_LOG_SCALE + 1] * 2)
    inward_low, inward_high, outward_low, outward_high = np.asarray(jax.jit(jax.grad(loss))(raw))
    assert inward_low < 0 < inward_high
    assert outward_low == outward_high == 0
