"""The moments of the mixture of logistics agree with sums over its levels and with samples."""

import functools

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mixtures import pixels_of, some_parameters

from vaejax.likelihoods import LEVEL, MAX_LOG_SCALE, MIN_LOG_SCALE, MixtureOfLogistics, to_levels
from vaejax.likelihoods.mixture import Components

seeds = st.integers(0, 10_000)


@functools.partial(jax.jit, static_argnums=1)
def moments_of(parameters: np.ndarray, channels: int) -> tuple[jax.Array, jax.Array]:
    return MixtureOfLogistics(channels).moments(pixels_of(parameters))


@functools.partial(jax.jit, static_argnums=1)
def components_of(parameters: np.ndarray, channels: int) -> Components:
    return MixtureOfLogistics(channels).components(pixels_of(parameters))


@functools.partial(jax.jit, static_argnums=2)
def grey_log_prob_and_moments(images: np.ndarray, parameters: np.ndarray, bits: int) -> tuple:
    """Returns the log-probability of each level, and the mean as a level and the variance."""
    likelihood, pixels = MixtureOfLogistics(1, bits), pixels_of(parameters)
    mean, variance = likelihood.moments(pixels)
    return likelihood.log_prob(images, pixels), to_levels(mean), variance


@pytest.mark.parametrize(("bits", "count"), [(8, 256), (5, 32)])
@settings(max_examples=15)
@given(seed=seeds, log_scale=st.floats(MIN_LOG_SCALE, MAX_LOG_SCALE))
def test_the_mean_of_a_grey_value_is_that_of_its_levels(bits, count, seed, log_scale):
    """Allows an error of half a level, because levels round the values of narrow components.

    Locations may lie outside [-1, 1].
    """
    parameters = np.repeat(some_parameters(seed, 1, 5, log_scale), count, axis=0)
    images = (np.arange(count) << (8 - bits)).astype(np.uint8).reshape(count, 1, 1, 1)
    log_prob, mean, variance = grey_log_prob_and_moments(images, parameters, bits)
    expected = np.sum(np.exp(np.float64(log_prob)) * np.linspace(0, 255, count))
    half = 127.5 / (count - 1)
    np.testing.assert_allclose(np.ravel(mean), expected, atol=half + 0.05)
    assert np.all(np.asarray(variance) >= 0)


def sampled_values(mixture: Components, count: int) -> np.ndarray:
    """Returns samples [channel, sample] of one pixel's mixture, clipped to [-1, 1]."""
    rng = np.random.default_rng(0)
    weight = np.exp(np.float64(mixture.log_weight))
    which = rng.choice(len(weight), count, p=weight / weight.sum())
    values = rng.logistic(mixture.location[:, which], np.exp(mixture.log_scale[:, which]))
    values[0] = np.clip(values[0], -1, 1)
    if len(values) == 3:
        a, b, c = mixture.colour[:, which]
        values[1] = np.clip(values[1] + a * values[0], -1, 1)
        values[2] = np.clip(values[2] + b * values[0] + c * values[1], -1, 1)
    return values


@pytest.mark.parametrize(("channels", "reach"), [(1, 1.0), (3, 0.3), (3, 1.0)])
def test_mean_and_variance_are_those_of_its_samples(channels, reach):
    parameters = some_parameters(3, channels, 4, np.log(8 * LEVEL))
    parameters[..., 4 : 4 + 4 * channels] *= reach
    mixture = jax.tree.map(lambda x: np.asarray(x)[..., 0], components_of(parameters, channels))
    values = sampled_values(mixture, 100_000)
    mean, variance = moments_of(parameters, channels)
    np.testing.assert_allclose(np.ravel(mean), values.mean(1), atol=0.5 * LEVEL)
    # Where clipping to [-1, 1] matters, `moments` computes only a bound of the variance.
    tolerance = 0.05 if reach < 1 else 0.3
    np.testing.assert_allclose(np.ravel(variance), values.var(1), rtol=tolerance)


@pytest.mark.parametrize("channels", [1, 3])
def test_values_far_beyond_an_end_still_have_a_variance(channels):
    """Metrics divide by the variance and take its logarithm."""
    cases = [
        (location, log_scale)
        for location in (-3.0, -1.5, 1.5, 3.0)
        for log_scale in (MIN_LOG_SCALE, np.log(2**-6), -3.3)
    ]
    parameters = np.repeat(some_parameters(0, channels, 4, 0.0), len(cases), axis=2)
    for pixel, (location, log_scale) in zip(parameters[0, 0], cases):
        pixel[4 : 4 + 4 * channels] = location
        pixel[4 + 4 * channels : 4 + 8 * channels] = log_scale
    mean, variance = map(np.asarray, moments_of(parameters, channels))
    assert mean.shape == (1, 1, len(cases), channels)
    assert np.all(np.abs(mean) <= 1 + 1e-6)
    assert np.all(variance > 1e-7)
