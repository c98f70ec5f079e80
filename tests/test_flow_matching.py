"""The flow prior, trained on codes by flow matching."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from codes import correlated
from flows import no_picture, train_flow
from tiny import tiny

from vaejax.models.noise import normal
from vaejax.priors import fit_gaussian
from vaejax.tasks.flow_prior import FlowPriorTask


def _energy_distance(a, b):
    """Computes Székely's 2 E|a-b| - E|a-a'| - E|b-b'|, which is 0 for equal distributions."""

    def mean_gap(a, b):
        return np.sqrt(((a[:, None] - b[None]) ** 2).sum(axis=-1)).mean()

    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return 2 * mean_gap(a, b) - mean_gap(a, a) - mean_gap(b, b)


@pytest.fixture(scope="module")
def moons():
    """Codes on two interleaved half circles, and a flow trained on them."""
    angle, noise_a, noise_b = np.random.default_rng(0).normal(size=(3, 4000))
    angle = np.random.default_rng(1).uniform(0, np.pi, 4000)
    upper = np.arange(4000) % 2 == 0
    x = np.where(upper, np.cos(angle), 1 - np.cos(angle)) + 0.08 * noise_a
    y = np.where(upper, np.sin(angle), 0.5 - np.sin(angle)) + 0.08 * noise_b
    codes = jnp.asarray(np.stack([x, y], axis=1), jnp.float32)
    return codes, train_flow(codes, 1500)


def test_untrained_flow_is_the_gaussian():
    codes = jnp.asarray(correlated(200, 3))
    prior = train_flow(codes, 0)
    gaussian = fit_gaussian([codes])
    np.testing.assert_allclose(prior.log_prob(codes[:20]), gaussian.log_prob(codes[:20]), atol=1e-3)
    key = jax.random.key(2)
    np.testing.assert_allclose(prior.sample(key, 20, 0.7), gaussian.sample(key, 20, 0.7), atol=1e-3)


def test_flow_trained_on_a_gaussian_has_its_density():
    codes = jnp.asarray(correlated(5000, 3))
    prior = train_flow(codes, 300)
    assert any(np.any(x != 0) for x in jax.tree.leaves(prior.params))
    truth = fit_gaussian([codes]).log_prob(codes[:300])
    error = np.asarray(prior.log_prob(codes[:300]) - truth)
    assert np.abs(error).mean() < 0.1
    assert abs(error.mean()) < 0.05


def test_flow_draws_moons(moons):
    codes, prior = moons
    draws = prior.sample(jax.random.key(5), 1500)
    np.testing.assert_allclose(draws.mean(axis=0), codes.mean(axis=0), atol=0.07)
    np.testing.assert_allclose(np.cov(draws.T), np.cov(codes.T), atol=0.07)
    gaussian = prior.gaussian.sample(jax.random.key(5), 1500)
    assert _energy_distance(draws, codes[:1500]) < 0.25 * _energy_distance(gaussian, codes[:1500])


def test_flow_density_of_moons_integrates_to_one(moons):
    codes, prior = moons
    low, high = codes.min(axis=0) - 0.4, codes.max(axis=0) + 0.4
    axes = [np.linspace(a, b, 70) for a, b in zip(low, high)]
    grid = jnp.asarray(np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 2), jnp.float32)
    density = np.exp(jax.jit(lambda prior, z: prior.log_prob(z))(prior, grid))
    cell = np.prod([axis[1] - axis[0] for axis in axes])
    assert density.sum() * cell == pytest.approx(1, abs=0.05)
    assert float(prior.log_prob(codes[:200]).mean()) > float(
        prior.gaussian.log_prob(codes[:200]).mean()
    )


def test_flow_draws_at_temperature_zero_are_all_one(moons):
    draws = np.asarray(moons[1].sample(jax.random.key(0), 5, 0.0))
    np.testing.assert_allclose(draws, np.tile(draws[:1], (5, 1)), atol=1e-5)


def test_flow_training_follows_its_seed_alone():
    codes = correlated(100, 2)
    first, second, other = (
        train_flow(codes, 100, batch_size=16, width=8, blocks=1, seed=seed) for seed in (0, 0, 1)
    )
    for one, two in zip(jax.tree.leaves(first), jax.tree.leaves(second)):
        np.testing.assert_array_equal(one, two)
    assert np.any(first.params["Dense_0"]["kernel"] != other.params["Dense_0"]["kernel"])


def test_the_times_of_a_batch_do_not_depend_on_its_noise():
    """With the same key, the first time would be a function of the first code's noise."""
    task = FlowPriorTask(tiny(), {"train": correlated(20, 3)}, no_picture, {})
    seen = []
    task._errors = lambda params, white, keys, times: seen.append((keys, times)) or times
    for seed in range(200):
        keys = jax.random.split(jax.random.key(seed), 8)
        task.loss("flow", {"flow": {}}, {"code": jnp.zeros((8, 3))}, keys, jnp.asarray(0))
    starts = np.array([float(times[0]) for _, times in seen])
    noise = np.array([float(normal(keys, (3,))[0, 0]) for keys, _ in seen])
    order = np.argsort(np.argsort(starts)), np.argsort(np.argsort(noise))
    assert abs(np.corrcoef(*order)[0, 1]) < 0.25
