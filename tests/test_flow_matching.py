"""The flow prior, trained on codes by flow matching."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy
from codes import correlated
from flows import no_picture, train_flow
from tiny import tiny

from vaejax.models.noise import normal
from vaejax.priors import FlowMatching, fit_gaussian
from vaejax.priors.gaussian import Gaussian
from vaejax.tasks.flow_prior import FlowPriorTask

# Compiled, because each operation on its own would be a program.
log_prob, gaussian_log_prob = jax.jit(FlowMatching.log_prob), jax.jit(Gaussian.log_prob)
sample, gaussian_sample = (
    jax.jit(prior.sample, static_argnums=2) for prior in (FlowMatching, Gaussian)
)
# All tests compute as many densities and samples, so that they share programs.
COUNT = 40**2
NOISE = 0.1


def _arcs(angle, upper):
    """Returns points on two interleaved half circles."""
    x = np.where(upper, np.cos(angle), 1 - np.cos(angle))
    y = np.where(upper, np.sin(angle), 0.5 - np.sin(angle))
    return np.stack([x, y], axis=-1)


@pytest.fixture(scope="module")
def moons():
    """Returns points with Gaussian noise around two interleaved half circles."""
    rng = np.random.default_rng(0)
    points = _arcs(rng.uniform(0, np.pi, 4000), np.arange(4000) % 2 == 0)
    return (points + NOISE * rng.normal(size=points.shape)).astype(np.float32)


def _log_density_of_moons(codes):
    """Computes the density from which `moons` are drawn, by the midpoint rule over the angle."""
    angle = (np.arange(200) + 0.5) * np.pi / 200
    centres = np.concatenate([_arcs(angle, True), _arcs(angle, False)])
    squares = ((codes[:, None] - centres[None]) ** 2).sum(axis=-1)
    log_kernel = -squares / (2 * NOISE**2) - np.log(2 * np.pi * NOISE**2)
    return scipy.special.logsumexp(log_kernel, axis=1) - np.log(len(centres))


def _energy_distance(a, b):
    """Computes Székely's 2 E|a-b| - E|a-a'| - E|b-b'|, which is 0 for equal distributions."""

    def mean_gap(a, b):
        return scipy.spatial.distance.cdist(a, b).mean()

    return 2 * mean_gap(a, b) - mean_gap(a, a) - mean_gap(b, b)


@pytest.fixture(scope="module")
def prior(moons):
    """Returns a flow that is trained on `moons`."""
    return train_flow(moons, 1000)


def test_untrained_flow_is_the_gaussian(moons):
    untrained, codes = train_flow(moons, 0), moons[:COUNT]
    gaussian = fit_gaussian([moons])
    expected = gaussian_log_prob(gaussian, codes)
    np.testing.assert_allclose(log_prob(untrained, codes), expected, atol=1e-3)
    key = jax.random.key(2)
    draws, expected = sample(untrained, key, COUNT, 0.7), gaussian_sample(gaussian, key, COUNT, 0.7)
    np.testing.assert_allclose(draws, expected, atol=1e-3)


def test_trained_flow_draws_moons(moons, prior):
    key = jax.random.key(5)
    draws = np.asarray(sample(prior, key, COUNT, 1.0))
    np.testing.assert_allclose(draws.mean(axis=0), moons.mean(axis=0), atol=0.07)
    np.testing.assert_allclose(np.cov(draws.T), np.cov(moons.T), atol=0.07)
    of_gaussian = gaussian_sample(prior.gaussian, key, COUNT, 1.0)
    codes = moons[:COUNT]
    assert _energy_distance(draws, codes) < 0.15 * _energy_distance(of_gaussian, codes)


def test_density_of_the_trained_flow_integrates_to_one(moons, prior):
    low, high = moons.min(axis=0) - 0.4, moons.max(axis=0) + 0.4
    axes = [np.linspace(a, b, 40) for a, b in zip(low, high)]
    grid = np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 2).astype(np.float32)
    cell = np.prod([axis[1] - axis[0] for axis in axes])
    assert np.exp(log_prob(prior, grid)).sum() * cell == pytest.approx(1, abs=0.05)


def test_density_of_the_trained_flow_is_near_the_true_one(moons, prior):
    codes = moons[:COUNT]
    true = _log_density_of_moons(codes).mean()
    of_gaussian = np.asarray(gaussian_log_prob(prior.gaussian, codes)).mean()
    assert -0.05 < true - np.asarray(log_prob(prior, codes)).mean() < 0.1 < true - of_gaussian


def test_flow_draws_at_temperature_zero_are_all_one(prior):
    draws = np.asarray(sample(prior, jax.random.key(0), COUNT, 0.0))
    np.testing.assert_allclose(draws, np.tile(draws[:1], (COUNT, 1)), atol=1e-5)


def test_initial_parameters_depend_on_the_key():
    config = tiny(flow={"width": 8, "blocks": 1})
    codes = {"train": correlated(20, 3)}
    task = FlowPriorTask(config, codes, no_picture, {}, latent_shape=(3,))
    init = jax.jit(lambda key: task.init(key)["flow"]["Dense_0"]["kernel"])
    first, again, other = (np.asarray(init(jax.random.key(seed))) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.all(first != other)


def test_times_of_a_batch_are_evenly_spaced_and_do_not_depend_on_its_noise():
    """With the same key, the first time would be a function of the first code's noise."""
    codes = {"train": correlated(20, 3)}
    task = FlowPriorTask(tiny(), codes, no_picture, {}, latent_shape=(3,))

    @jax.jit
    @jax.vmap
    def times_and_first_noise(seed):
        passed = []
        task._errors = lambda params, white, keys, times: passed.append(times) or times
        keys = jax.random.split(jax.random.key(seed), 8)
        task.loss("flow", {"flow": {}}, {"code": jnp.zeros((8, 3))}, keys, jnp.asarray(0))
        return passed[0], normal(keys, (3,))[0, 0]

    times, noise = map(np.asarray, times_and_first_noise(np.arange(200)))
    assert times.min() >= 0 and times.max() < 1
    np.testing.assert_allclose(np.diff(np.sort(times, axis=1), axis=1), 1 / 8, atol=1e-6)
    assert scipy.stats.kstest(times[:, 0], "uniform").pvalue > 0.01
    assert abs(scipy.stats.spearmanr(times[:, 0], noise).statistic) < 0.25
