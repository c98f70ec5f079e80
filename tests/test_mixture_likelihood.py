"""The mixture of logistics: masses sum to one, gradients are right, strips change no result."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy
from hypothesis import given, settings
from hypothesis import strategies as st
from mixtures import pixels_of, some_parameters

from vaejax.likelihoods import (
    MAX_LOG_SCALE,
    MIN_LOG_SCALE,
    DiscretizedLogistic,
    MixtureOfLogistics,
    MixturePixels,
    Pixels,
)
from vaejax.likelihoods.logistic import log_mass
from vaejax.likelihoods.mixture import first_bias, parameters_per_pixel

LEVELS = np.arange(256, dtype=np.uint8)


@functools.partial(jax.jit, static_argnames="bits")
def grey_log_prob(images: np.ndarray, parameters: np.ndarray, *, bits: int) -> jax.Array:
    """Returns the log-probability of each grey picture, given the parameters of each pixel."""
    return MixtureOfLogistics(1, bits).log_prob(images, pixels_of(parameters))


@functools.partial(jax.jit, static_argnames="bits")
def log_mass_of_all(images: np.ndarray, parameters: np.ndarray, *, bits: int = 8) -> jax.Array:
    """Returns the log of the summed masses of all pixels' colours; the parameters are shared."""
    likelihood = MixtureOfLogistics(3, bits)
    pixels = pixels_of(jnp.broadcast_to(parameters, (*images.shape[:-1], parameters.shape[-1])))
    return jax.nn.logsumexp(likelihood.log_masses(images, likelihood.components(pixels)))


seeds = st.integers(0, 10_000)


@pytest.mark.parametrize(("bits", "count"), [(8, 256), (5, 32)])
@settings(max_examples=15)
@given(seed=seeds, log_scale=st.floats(MIN_LOG_SCALE - 2, MAX_LOG_SCALE + 2))
def test_grey_masses_sum_to_one(bits, count, seed, log_scale):
    images = (np.arange(count) << (8 - bits)).astype(np.uint8).reshape(count, 1, 1, 1)
    parameters = np.repeat(some_parameters(seed, 1, 5, log_scale), count, axis=0)
    masses = np.exp(np.float64(grey_log_prob(images, parameters, bits=bits)))
    np.testing.assert_allclose(masses.sum(), 1.0, atol=1e-4)


@jax.jit
def log_mass_of_red(red: int, parameters: np.ndarray) -> jax.Array:
    """Returns the log-mass of a pixel's red value alone, a mixture of logistics of its own."""
    mixture = MixtureOfLogistics(3).components(pixels_of(parameters))
    masses = log_mass(
        jnp.full(mixture.log_weight.shape, red, jnp.uint8),
        mixture.location[0],
        mixture.log_scale[0],
    )
    return jax.nn.logsumexp(mixture.log_weight + masses)


@pytest.mark.parametrize(
    ("red", "log_scale"), [(0, MIN_LOG_SCALE), (100, -3.0), (255, MAX_LOG_SCALE)]
)
def test_greens_and_blues_sum_to_their_reds_own_mass(red, log_scale):
    """The sum is over all 65536 colours of 8 bits that have this red."""
    grid = np.stack(np.meshgrid([red], LEVELS, LEVELS, indexing="ij"), -1)
    parameters = some_parameters(red, 3, 5, log_scale)
    total = log_mass_of_all(grid.astype(np.uint8), parameters)
    np.testing.assert_allclose(total, log_mass_of_red(red, parameters), atol=1e-4)


def test_colour_masses_sum_to_one_over_all_colours():
    """The sum is over all 32768 colours of 5 bits; the mixture has five components."""
    grid = np.stack(np.meshgrid(*[np.arange(32) << 3] * 3, indexing="ij"), -1)
    images = grid.reshape(1, 32, 1024, 3).astype(np.uint8)
    for seed, log_scale in [(0, -2.0), (1, -5.0), (2, 0.0)]:
        parameters = some_parameters(seed, 3, 5, log_scale)
        total = log_mass_of_all(images, parameters, bits=5)
        np.testing.assert_allclose(np.exp(total), 1.0, atol=1e-4)


def unit_of(level: int, bits: int) -> float:
    """Maps the highest `bits` bits of a level to the scale from -1 to 1."""
    return (level >> (8 - bits)) * 2 / (2**bits - 1) - 1


def log_mass_in_float64(level: int, location: float, log_scale: float, bits: int) -> float:
    """Computes log(F(b) - F(a)) of a logistic, mirrored if F(a) and F(b) might be close to 1."""
    top, middle, scale = 2**bits - 1, unit_of(level, bits), np.exp(log_scale)
    k = level >> (8 - bits)
    low = -np.inf if k == 0 else (middle - 1 / top - location) / scale
    high = np.inf if k == top else (middle + 1 / top - location) / scale
    if low + high > 0:
        low, high = -high, -low
    return np.log(scipy.special.expit(high) - scipy.special.expit(low))


def log_prob_in_float64(colour: np.ndarray, parameters: np.ndarray, bits: int) -> float:
    """Computes a pixel's log-probability as in PixelCNN++: green depends on red, blue on both."""
    weight, *locations, s_red, s_green, s_blue, a, b, c = parameters.reshape(10, -1)
    red, green, _ = (unit_of(level, bits) for level in colour)
    a, b, c = np.tanh([a, b, c])
    locations = locations + np.stack([0 * a, a * red, b * red + c * green])
    of_components = [
        sum(log_mass_in_float64(level, *own, bits) for level, *own in zip(colour, *component))
        for component in zip(locations.T, np.stack([s_red, s_green, s_blue]).T)
    ]
    return scipy.special.logsumexp(of_components + weight) - scipy.special.logsumexp(weight)


@functools.partial(jax.jit, static_argnums=3)
@functools.partial(jax.grad, argnums=(1, 2))
def _slopes_of_mass(level: jax.Array, location: jax.Array, log_scale: jax.Array, bits: int):
    one = (jnp.reshape(x, (1,)) for x in (level, location, log_scale))
    return jnp.sum(log_mass(*one, bits))


@settings(max_examples=30)
@given(
    seed=seeds,
    level=st.integers(0, 255),
    log_scale=st.floats(MIN_LOG_SCALE + 0.01, MAX_LOG_SCALE - 0.01),
    bits=st.sampled_from([5, 8]),
)
def test_slopes_of_a_mass_match_finite_differences_in_float64(seed, level, log_scale, bits):
    rng = np.random.default_rng(seed)
    # Farther away, rounding in the reference would leave nothing of the mass.
    location = unit_of(level, bits) + rng.uniform(-4, 4) * np.exp(log_scale)
    at = np.float64(np.float32(location)), np.float64(np.float32(log_scale))
    slopes = _slopes_of_mass(np.uint8(level), *map(np.float32, at), bits)
    for which, slope in enumerate(slopes):
        step = 1e-5 * (np.exp(log_scale) if which == 0 else 1.0)
        up, down = list(at), list(at)
        up[which] += step
        down[which] -= step
        masses = [log_mass_in_float64(level, *point, bits) for point in (up, down)]
        expected = (masses[0] - masses[1]) / (2 * step)
        unit = np.exp(-log_scale) if which == 0 else 1.0
        np.testing.assert_allclose(slope.item(), expected, rtol=2e-3, atol=2e-3 * unit)


@functools.partial(jax.jit, static_argnums=2)
@jax.value_and_grad
def _value_and_slopes(parameters: jax.Array, image: jax.Array, bits: int) -> jax.Array:
    return MixtureOfLogistics(3, bits).log_prob(image, pixels_of(parameters))[0]


@pytest.mark.parametrize("bits", [5, 8])
@settings(max_examples=15)
@given(seed=seeds, colour=st.tuples(*[st.integers(0, 255)] * 3), log_scale=st.floats(-3.5, -2.0))
def test_mixture_and_its_slopes_match_a_reference_in_float64(bits, seed, colour, log_scale):
    """The reference gradient has finite differences for every parameter of the mixture."""
    parameters = some_parameters(seed, 3, 3, log_scale)
    image = jnp.asarray(colour, jnp.uint8).reshape(1, 1, 1, 3)
    value, slopes = _value_and_slopes(jnp.asarray(parameters), image, bits)
    at = np.float64(parameters.ravel())
    np.testing.assert_allclose(value, log_prob_in_float64(colour, at, bits), rtol=1e-4)
    step = 1e-5
    expected = [
        (log_prob_in_float64(colour, at + d, bits) - log_prob_in_float64(colour, at - d, bits))
        / (2 * step)
        for d in step * np.eye(at.size)
    ]
    np.testing.assert_allclose(slopes.ravel(), expected, rtol=2e-3, atol=2e-3)


@functools.partial(jax.jit, static_argnums=2)
@jax.value_and_grad
def _total_and_slopes(parameters: jax.Array, images: jax.Array, channels: int) -> jax.Array:
    return jnp.sum(MixtureOfLogistics(channels).log_prob(images, pixels_of(parameters)))


@pytest.mark.parametrize("channels", [1, 3])
@settings(max_examples=15)
@given(seed=seeds, log_scale=st.floats(-30.0, 30.0))
def test_gradients_of_the_mixture_are_finite_everywhere(channels, seed, log_scale):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (2, 3, 4, channels), np.uint8)
    images.ravel()[:4] = [0, 255, 0, 255][: images.size]
    shape = (2, 3, 4, parameters_per_pixel(channels, 5))
    scale = 10.0 ** rng.uniform(-2, 3)
    parameters = rng.normal(scale=scale, size=shape).astype(np.float32)
    parameters += np.float32(log_scale)

    value, slope = _total_and_slopes(parameters, images, channels)
    assert np.isfinite(value) and np.all(np.isfinite(slope))


def test_one_component_is_the_logistic_itself():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 4, 5, 1), np.uint8)
    location, log_scale = rng.normal(size=(2, 3, 4, 5, 1)).astype(np.float32)
    log_scale = np.clip(log_scale - 2, -6, 0)
    parameters = np.concatenate([np.zeros_like(location), location, log_scale], -1)
    expected = jax.jit(DiscretizedLogistic().log_prob)(images, Pixels(location, log_scale))
    found = grey_log_prob(images, parameters, bits=8)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_initial_components_are_spread_evenly():
    """They have equal weights, locations from -0.5 to 0.5, and scales of 1/6."""
    weights, *others = np.asarray(first_bias(3, 4)).reshape(-1, 4)
    np.testing.assert_array_equal(weights, 0.0)
    np.testing.assert_allclose(others[:3], [[-0.375, -0.125, 0.125, 0.375]] * 3, rtol=1e-6)
    np.testing.assert_allclose(np.exp(others[3:6]), 1 / 6, rtol=1e-6)
    np.testing.assert_array_equal(others[6:], 0.0)


def test_strips_of_no_pictures_have_no_moments():
    """A gallery of a single face decodes such a batch: it has no other face to interpolate to."""
    count = parameters_per_pixel(3, 10)
    shapes = (0, 128, 128, 4), (4, count), (count,)
    pixels = MixturePixels(*(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes))
    moments = jax.eval_shape(MixtureOfLogistics(3).moments, pixels)
    assert [part.shape for part in moments] == [(0, 128, 128, 3)] * 2


@pytest.fixture(scope="module")
def large_picture() -> tuple[jax.Array, MixturePixels]:
    """Returns a picture and its mixtures, in three strips of 40 rows and a last one of 7."""
    rng = np.random.default_rng(0)
    count, height, width = parameters_per_pixel(3, 10), 127, 128
    assert 2**19 // (width * count) == 40
    images = jnp.asarray(rng.integers(0, 256, (1, height, width, 3), np.uint8))
    hidden = rng.normal(size=(1, height, width, 4)).astype(np.float32)
    kernel = np.float32(0.3) * rng.normal(size=(4, count)).astype(np.float32)
    return images, MixturePixels(hidden, kernel, first_bias(3, 10))


def test_strips_change_neither_probability_nor_gradient_and_save_memory(large_picture):
    images, pixels = large_picture
    likelihood = MixtureOfLogistics(3)

    def in_strips(hidden, kernel):
        return jnp.sum(likelihood.log_prob(images, MixturePixels(hidden, kernel, pixels.bias)))

    def at_once(hidden, kernel):
        mixture = likelihood.components(MixturePixels(hidden, kernel, pixels.bias))
        return jnp.sum(likelihood.log_masses(images, mixture))

    arguments = pixels.hidden, pixels.kernel
    (value, gradients, memory), (expected, expected_gradients, memory_at_once) = (
        value_gradients_and_memory(function, *arguments) for function in (in_strips, at_once)
    )
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    for one, other in zip(gradients, expected_gradients):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3)
    assert memory < 0.6 * memory_at_once


def value_gradients_and_memory(function: Callable, *arguments: np.ndarray) -> tuple:
    """Returns a function's value and gradients, and the bytes of temporary memory they take."""
    function = jax.jit(jax.value_and_grad(function, argnums=range(len(arguments))))
    compiled = function.lower(*arguments).compile()
    return *compiled(*arguments), compiled.memory_analysis().temp_size_in_bytes


moments_of = jax.jit(MixtureOfLogistics(3).moments)


@pytest.mark.parametrize("height", [120, 127])
def test_moments_in_strips_are_those_of_single_rows(large_picture, height):
    """With 120 rows, all strips are of the same height."""
    _, pixels = large_picture
    in_strips = moments_of(pixels._replace(hidden=pixels.hidden[:, :height]))
    rows = [0, 1, 38, 39, 40, 41, height - 2, height - 1]
    expected = moments_of(pixels._replace(hidden=pixels.hidden[:, rows]))
    for found, part in zip(in_strips, expected):
        np.testing.assert_allclose(np.asarray(found)[:, rows], part, rtol=1e-4, atol=1e-5)
