"""Likelihoods sum to one, match independent references, and have finite gradients."""

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
ALL_LEVELS = np.arange(256, dtype=np.uint8).reshape(256, 1, 1, 1)
locations = st.floats(-3.0, 3.0, width=32)
log_scales = st.floats(MIN_LOG_SCALE, MAX_LOG_SCALE)


def log_masses(name: str, location: float, log_scale: float) -> np.ndarray:
    pixels = Pixels(
        jnp.full((256, 1, 1, 1), location, jnp.float32),
        jnp.full((1, 1, 1, 1), log_scale, jnp.float32),
    )
    return np.asarray(LIKELIHOODS[name].log_prob(jnp.asarray(ALL_LEVELS), pixels), np.float64)


@pytest.mark.parametrize("name", LIKELIHOODS)
@settings(max_examples=60)
@given(location=locations, log_scale=log_scales)
def test_masses_sum_to_one(name, location, log_scale):
    scale = 20.0 if name == "bernoulli" else 1.0
    np.testing.assert_allclose(
        np.exp(log_masses(name, scale * location, log_scale)).sum(), 1.0, atol=1e-4
    )


@settings(max_examples=40)
@given(location=st.floats(-1.0, 1.0, width=32), log_scale=st.floats(-4.0, 0.0))
def test_logistic_matches_scipy(location, log_scale):
    edges = (np.arange(257) - 0.5) / 127.5 - 1.0
    edges[0], edges[-1] = -np.inf, np.inf
    scale = np.exp(np.float64(np.float32(log_scale)))
    masses = np.diff(scipy.stats.logistic.cdf(edges, np.float64(np.float32(location)), scale))
    likely = masses > 1e-12  # smaller ones are lost to rounding in scipy's CDFs
    np.testing.assert_allclose(
        log_masses("logistic", location, log_scale)[likely], np.log(masses[likely]), atol=2e-3
    )


@settings(max_examples=30)
@given(location=st.floats(-1.0, 1.0, width=32), log_scale=st.floats(-4.0, 0.0))
def test_logistic_slopes_match_the_closed_form(location, log_scale):
    def masses(location):
        pixels = Pixels(location, jnp.full((1, 1, 1, 1), log_scale, jnp.float32))
        return LIKELIHOODS["logistic"].log_prob(jnp.asarray(ALL_LEVELS), pixels)

    locations = jnp.full((256, 1, 1, 1), location, jnp.float32)
    slopes = jax.grad(lambda locations: jnp.sum(masses(locations)))(locations).ravel()
    edges = (np.arange(257) - 0.5) / 127.5 - 1.0
    edges[0], edges[-1] = -np.inf, np.inf
    scale = np.exp(np.float64(np.float32(log_scale)))
    below = scipy.special.expit((edges - np.float64(np.float32(location))) / scale)
    # d/dm log(F(b) - F(a)) = (F(a) + F(b) - 1) / scale, because F' = F (1 - F) / scale.
    np.testing.assert_allclose(slopes, (below[1:] + below[:-1] - 1.0) / scale, atol=1e-3 / scale)


@settings(max_examples=40)
@given(location=st.floats(-1.0, 1.0, width=32), log_scale=st.floats(-4.0, 0.0))
def test_gaussian_matches_scipy(location, log_scale):
    edges = (np.arange(257) - 0.5) / 127.5 - 1.0
    edges[0], edges[-1] = -np.inf, np.inf
    standard = (edges - np.float64(np.float32(location))) / np.exp(np.float64(log_scale))
    masses = np.diff(scipy.stats.norm.cdf(standard))
    likely = masses > 1e-10
    np.testing.assert_allclose(
        log_masses("gaussian", location, log_scale)[likely], np.log(masses[likely]), atol=2e-3
    )


@given(logit=st.floats(-60.0, 60.0, width=32))
@settings(max_examples=40)
def test_bernoulli_matches_its_definition(logit):
    tilted = np.float64(logit) * np.arange(256) / 255.0
    expected = tilted - scipy.special.logsumexp(tilted)
    np.testing.assert_allclose(log_masses("bernoulli", logit, 0.0), expected, atol=2e-4)
    pixels = Pixels(jnp.full((1, 1, 1, 1), logit, jnp.float32), jnp.zeros((1, 1, 1, 1)))
    masses, levels = np.exp(expected), np.arange(256)
    mean = (masses * levels).sum()
    variance = (masses * (levels - mean) ** 2).sum()
    own_mean, own_variance = LIKELIHOODS["bernoulli"].moments(pixels)
    np.testing.assert_allclose(to_levels(own_mean).item(), mean, rtol=1e-3, atol=0.05)
    np.testing.assert_allclose(own_variance.item(), variance * LEVEL**2, rtol=0.03, atol=1e-6)


@pytest.mark.parametrize("name", ["logistic", "gaussian"])
@settings(max_examples=30)
@given(location=locations, log_scale=log_scales)
def test_gradients_are_finite_everywhere(name, location, log_scale):
    def total(location, log_scale):
        pixels = Pixels(jnp.broadcast_to(location, (256, 1, 1, 1)), log_scale.reshape(1, 1, 1, 1))
        return jnp.sum(LIKELIHOODS[name].log_prob(jnp.asarray(ALL_LEVELS), pixels))

    gradients = jax.grad(total, argnums=(0, 1))(jnp.float32(location), jnp.float32(log_scale))
    assert np.all(np.isfinite(gradients))


@pytest.mark.parametrize("name", ["logistic", "gaussian"])
def test_variance_is_the_distributions_own(name):
    # The scale is much larger than a level and much smaller than the range of values, so that
    # discretisation hardly changes the variance.
    log_scale = np.log(8 * LEVEL)
    masses = np.exp(log_masses(name, 0.0, log_scale))
    levels = np.arange(256) - 127.5
    pixels = Pixels(jnp.zeros((1, 1, 1, 1)), jnp.full((1, 1, 1, 1), log_scale, jnp.float32))
    variance = LIKELIHOODS[name].moments(pixels)[1].item() / LEVEL**2
    np.testing.assert_allclose((masses * levels**2).sum(), variance, rtol=0.01)


@pytest.mark.parametrize("name", ["logistic", "mixture"])
@pytest.mark.parametrize("bits", [5, 8])
def test_the_config_says_how_many_bits_count(name, bits):
    assert build_likelihood(tiny(likelihood={"name": name, "bits": bits})).bits == bits


def test_scaling_is_inverted():
    images = jnp.asarray(ALL_LEVELS)
    assert to_unit(images).min() == -1.0 and to_unit(images).max() == 1.0
    np.testing.assert_allclose(to_levels(to_unit(images)), ALL_LEVELS, atol=1e-4)
    mean = Pixels(to_unit(images), jnp.zeros_like(images, jnp.float32))
    np.testing.assert_array_equal(to_picture(DiscretizedLogistic(), mean), ALL_LEVELS)


@pytest.mark.parametrize("bits", [5, 8])
def test_what_was_drawn_of_a_likelihood_is_as_far_from_its_mean_as_its_variance_says(bits):
    """For samples of the likelihood, `squared_z` is 1 on average, for any number of bits."""
    rng = np.random.default_rng(0)
    location, scale, top = 0.1, 0.08, 2**bits - 1
    drawn = np.clip(rng.logistic(location, scale, (4, 64, 64, 1)), -1.0, 1.0)
    images = jnp.asarray(np.uint8(np.round((drawn + 1.0) * top / 2)) << (8 - bits))
    pixels = Pixels(jnp.full(images.shape, location), jnp.full((1, 1, 1, 1), np.log(scale)))
    likelihood = DiscretizedLogistic(bits)
    inference = Inference(jnp.zeros((4, 1)), jnp.zeros(4), pixels, None)
    terms = Evidence(likelihood.log_prob(images, pixels), inference)
    sums = sums_of(terms, likelihood, images, jnp.ones(4))
    np.testing.assert_allclose(sums.squared_z / sums.count, 1.0, rtol=0.05)


def test_a_scale_at_its_limit_finds_back():
    def loss(raw):
        return jnp.sum((bound_log_scale(raw) - jnp.asarray([-3.0, -3.0, -50.0, 50.0])) ** 2)

    raw = jnp.asarray([MIN_LOG_SCALE - 1, MAX_LOG_SCALE + 1, MIN_LOG_SCALE - 1, MAX_LOG_SCALE + 1])
    inward_low, inward_high, outward_low, outward_high = jax.grad(loss)(raw)
    assert inward_low < 0 < inward_high
    assert outward_low == outward_high == 0
