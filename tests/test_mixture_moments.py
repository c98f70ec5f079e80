"""The moments of the mixture of logistics agree with sums over its levels and with samples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mixtures import pixels_of, some_parameters

from vaejax.likelihoods import LEVEL, MAX_LOG_SCALE, MIN_LOG_SCALE, MixtureOfLogistics, to_levels
from vaejax.likelihoods.mixture import Components

seeds = st.integers(0, 10_000)


@pytest.mark.parametrize(("bits", "count"), [(8, 256), (5, 32)])
@settings(max_examples=15)
@given(seed=seeds, log_scale=st.floats(MIN_LOG_SCALE, MAX_LOG_SCALE))
def test_the_mean_of_a_grey_value_is_that_of_its_levels(bits, count, seed, log_scale):
    """Allows an error of half a level, because levels round the values of narrow components.

    Locations may lie outside [-1, 1].
    """
    likelihood = MixtureOfLogistics(1, bits)
    parameters = np.repeat(some_parameters(seed, 1, 5, log_scale), count, axis=0)
    pixels = pixels_of(parameters)
    images = (np.arange(count) << (8 - bits)).astype(np.uint8).reshape(count, 1, 1, 1)
    masses = np.exp(np.float64(likelihood.log_prob(jnp.asarray(images), pixels)))
    expected = np.sum(masses * np.linspace(0, 255, count))
    half = 127.5 / (count - 1)
    mean, variance = likelihood.moments(pixels)
    np.testing.assert_allclose(to_levels(mean)[0, 0, 0, 0], expected, atol=half + 0.05)
    assert np.all(variance >= 0)


def sampled_values(mixture: Components, count: int) -> np.ndarray:
    """Returns samples [channel, sample] of one pixel's mixture, clipped to [-1, 1]."""
    rng = np.random.default_rng(0)
    weight = np.exp(np.float64(mixture.log_weight))
    which = rng.choice(len(weight), count, p=weight / weight.sum())
    own = rng.logistic(mixture.location[:, which], np.exp(mixture.log_scale[:, which]))
    own[0] = np.clip(own[0], -1, 1)
    if len(own) == 3:
        a, b, c = mixture.colour[:, which]
        own[1] = np.clip(own[1] + a * own[0], -1, 1)
        own[2] = np.clip(own[2] + b * own[0] + c * own[1], -1, 1)
    return own


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("reach", [0.3, 1.0])
def test_mean_and_variance_are_those_of_its_samples(channels, reach):
    parameters = some_parameters(3, channels, 4, np.log(8 * LEVEL))
    parameters[..., 4 : 4 + 4 * channels] *= reach
    likelihood, pixels = MixtureOfLogistics(channels), pixels_of(parameters)
    mixture = jax.tree.map(lambda x: np.asarray(x[..., 0]), likelihood.components(pixels))
    own = sampled_values(mixture, 400_000)
    mean, variance = likelihood.moments(pixels)
    np.testing.assert_allclose(mean.ravel(), own.mean(1), atol=0.5 * LEVEL)
    # Where clipping to [-1, 1] matters, `moments` computes only a bound of the variance.
    tolerance = 0.05 if reach < 1 else 0.3
    np.testing.assert_allclose(variance.ravel(), own.var(1), rtol=tolerance)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("log_scale", [MIN_LOG_SCALE, np.log(2**-6), -3.3])
@pytest.mark.parametrize("location", [-3.0, -1.5, 1.5, 3.0])
def test_values_far_beyond_an_end_still_have_a_variance(channels, log_scale, location):
    """Metrics divide by the variance and take its logarithm."""
    parameters = some_parameters(0, channels, 4, log_scale)
    parameters[..., 4 : 4 + 4 * channels] = location
    parameters[..., 4 + 4 * channels : 4 + 8 * channels] = log_scale
    mean, variance = MixtureOfLogistics(channels).moments(pixels_of(parameters))
    assert np.all(np.abs(mean) <= 1 + 1e-6)
    assert np.all(variance > 1e-7)
