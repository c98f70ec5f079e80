"""The flow prior over maps: its start, what it learns, and its estimated density."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy
from flows import no_picture, train_flow
from tiny import tiny, without

from vaejax.data import Dataset
from vaejax.models.noise import picture_keys
from vaejax.priors import DiagonalGaussian, FlowMatching
from vaejax.priors.density import density_of
from vaejax.priors.diagonal_gaussian import fit_per_channel
from vaejax.tasks.flow_prior import FlowPriorTask
from vaejax.tasks.flow_prior.task import logit_normal

SHAPE = (4, 4, 2)
COUNT = 256
log_prob = jax.jit(FlowMatching.log_prob)
estimate = jax.jit(FlowMatching.estimate_log_prob, static_argnums=3)
sample = jax.jit(FlowMatching.sample, static_argnums=2)
# For tests of what does not depend on training: four tokens.
SMALL = {"patch": 2, "width": 16, "blocks": 1, "head_size": 8}


def covariance():
    """Returns the covariance of the noise of `maps`: of neighbours 0.7 along rows and columns."""
    near = 0.7 ** np.abs(np.subtract.outer(np.arange(4), np.arange(4)))
    channels = np.array([[1.0, -0.5], [-0.5, 4.0]])
    return 0.2 * np.kron(np.kron(near, near), channels)


def pattern():
    """Returns a map that is 1 in its upper half and -1 in its lower half."""
    return np.repeat([1.0, -1.0], 16)


@pytest.fixture(scope="module")
def maps():
    """Returns maps around `pattern` and its negative, half of them around each."""
    rng = np.random.default_rng(0)
    noise = rng.multivariate_normal(np.zeros(32), covariance(), size=4000)
    signs = rng.choice([-1.0, 1.0], size=(4000, 1))
    return (3 + signs * pattern() + noise).astype(np.float32)


@pytest.fixture(scope="module")
def trained(maps):
    return train_flow(maps, 400, latent_shape=SHAPE, batch_size=128, head_size=16)


@pytest.fixture(scope="module")
def perturbed(maps):
    """Returns a flow with small random parameters, whose Jacobian is not symmetric."""
    start = train_flow(maps, 0, latent_shape=SHAPE, **SMALL)
    random = np.random.default_rng(0)
    return start.replace(
        params=jax.tree.map(
            lambda leaf: leaf + 0.1 * random.normal(size=leaf.shape).astype(np.float32),
            start.params,
        )
    )


def test_channels_are_standardised():
    codes = np.random.default_rng(0).normal(size=(50, 3, 2, 4)) * [1, 2, 3, 0] + [0, 5, 1000, 7]
    codes = codes.astype(np.float32)
    gaussian = fit_per_channel([codes[:20].reshape(20, -1), codes[20:].reshape(30, -1)], 4)
    mean, scale = (np.asarray(moment).reshape(3, 2, 4) for moment in vars(gaussian).values())
    np.testing.assert_allclose(mean, np.tile(codes.mean(axis=(0, 1, 2)), (3, 2, 1)), rtol=1e-5)
    np.testing.assert_allclose(scale[0, 0, :3], codes.std(axis=(0, 1, 2))[:3], rtol=1e-4)
    # A channel in which all codes are equal is not divided by zero.
    assert 0 < scale[0, 0, 3] < 0.01
    flat = jnp.asarray(codes.reshape(50, -1))
    back = gaussian.from_noise(gaussian.to_noise(flat))
    np.testing.assert_allclose(back, flat, rtol=1e-5, atol=1e-3)


def test_an_untrained_flow_is_the_gaussian_of_the_channels(maps):
    untrained, codes = train_flow(maps, 0, latent_shape=SHAPE, **SMALL), maps[:COUNT]
    gaussian = untrained.gaussian
    assert isinstance(gaussian, DiagonalGaussian)
    expected = scipy.stats.norm(gaussian.mean, gaussian.scale).logpdf(codes).sum(axis=1)
    np.testing.assert_allclose(log_prob(untrained, codes), expected, atol=1e-3)
    # The Jacobian is diagonal, so any vectors of signs give its trace.
    keys = picture_keys(jax.random.key(0), jnp.arange(COUNT))
    np.testing.assert_allclose(estimate(untrained, codes, keys, 1), expected, atol=1e-3)
    draws = sample(untrained, jax.random.key(2), COUNT, 0.7)
    noise = 0.7 * jax.random.normal(jax.random.key(2), (COUNT, 32))
    np.testing.assert_allclose(draws, gaussian.from_noise(noise), atol=1e-3)


def test_the_estimated_density_is_unbiased(perturbed, maps):
    exact = np.asarray(log_prob(perturbed, maps[:COUNT]))[:2]
    rows = np.repeat(maps[:2], COUNT // 2, axis=0)
    keys = jax.random.split(jax.random.key(1), COUNT)
    found = np.asarray(estimate(perturbed, rows, keys, 1)).reshape(2, -1)
    errors = found.std(axis=1, ddof=1) / np.sqrt(COUNT // 2)
    assert np.all(errors > 0)
    assert np.all(np.abs(found.mean(axis=1) - exact) < 4 * errors)
    of_more = np.asarray(estimate(perturbed, rows, keys, 8)).reshape(2, -1)
    np.testing.assert_array_less(of_more.std(axis=1), 0.5 * found.std(axis=1))


def test_the_density_of_an_evaluation_does_not_depend_on_the_batch(perturbed, maps):
    density = density_of(perturbed)
    assert "Hutchinson" in density.estimate
    keys = picture_keys(jax.random.key(0), jnp.arange(6))
    of_six = jax.jit(density.log_prob)(maps[:6], keys)
    of_two = jax.jit(density.log_prob)(maps[4:6], keys[4:])
    np.testing.assert_allclose(of_six[4:], of_two, rtol=1e-5)


def test_a_trained_flow_draws_such_maps(trained, maps):
    draws = np.asarray(sample(trained, jax.random.key(5), 2 * COUNT, 1.0))
    expected = covariance() + np.outer(pattern(), pattern())
    np.testing.assert_allclose(draws.mean(axis=0), np.full(32, 3), atol=0.2)
    scale = np.sqrt(np.diag(expected))
    gap = (np.cov(draws.T) - expected) / np.outer(scale, scale)
    assert np.abs(gap).max() < 0.25 and np.sqrt(np.mean(gap**2)) < 0.08
    # Two modes: the mean over pixels of the pattern's sign is -1 or 1, and hardly ever between.
    along = (draws - 3) @ pattern() / 32
    of_data = (maps - 3) @ pattern() / 32
    assert np.mean(np.abs(along) < 0.4) < np.mean(np.abs(of_data) < 0.4) + 0.06
    assert 0.4 < np.mean(along > 0) < 0.6


def test_a_trained_flow_gives_such_maps_their_density(trained, maps):
    codes = maps[: COUNT // 4]
    modes = [
        scipy.stats.multivariate_normal(3 + sign * pattern(), covariance()).logpdf(codes)
        for sign in (1, -1)
    ]
    true = (scipy.special.logsumexp(modes, axis=0) - np.log(2)).mean()
    of_gaussian = scipy.stats.norm(trained.gaussian.mean, trained.gaussian.scale)
    start = of_gaussian.logpdf(codes).sum(axis=1).mean()
    keys = picture_keys(jax.random.key(0), jnp.arange(len(codes)))
    found = np.asarray(estimate(trained, codes, keys, 1)).mean()
    assert -0.2 < true - found < 0.15 * (true - start)


def test_times_are_logit_normal():
    quantiles = (np.arange(2000) + 0.5) / 2000
    times = np.asarray(logit_normal(jnp.asarray(quantiles, jnp.float32)))
    assert scipy.stats.kstest(scipy.special.logit(times), "norm").pvalue > 0.99
    assert np.all(np.isfinite(logit_normal(jnp.zeros(3))))


def test_half_of_the_codes_are_those_of_mirror_images():
    codes = np.random.default_rng(0).normal(size=(400, 8)).astype(np.float32)
    mirrored = codes + 100
    task = FlowPriorTask(
        without(tiny(), "flow", width=16, head_size=8, blocks=1),
        {"train": codes, "valid": codes[:5]},
        no_picture,
        {},
        latent_shape=(2, 2, 2),
        mirrored=mirrored,
    )
    examples = task.examples(Dataset({}, {}, {}))
    assert examples["train"].keys() == {"code", "mirrored"} and examples["valid"].keys() == {"code"}
    batch = jax.tree.map(jnp.asarray, {**examples["train"], "index": np.arange(400)})
    augment = jax.jit(task.augment)
    found = {key: augment(batch, jax.random.key(key)) for key in range(2)}
    assert found[0].keys() == {"code", "index"}
    for key in found:
        is_mirrored = np.all(found[key]["code"] == batch["mirrored"], axis=1)
        is_same = np.all(found[key]["code"] == batch["code"], axis=1)
        assert np.all(is_mirrored ^ is_same) and 150 < is_same.sum() < 250
    assert np.any(found[0]["code"] != found[1]["code"])
    # Both are normalised alike, by the moments of all of them.
    both = np.concatenate([batch["code"], batch["mirrored"]]).reshape(-1, 2)
    np.testing.assert_allclose(both.mean(axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(both.std(axis=0), 1, atol=1e-3)


def test_without_mirror_images_a_batch_stays_as_it_is():
    codes = {"train": np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)}
    task = FlowPriorTask(tiny(), codes, no_picture, {}, latent_shape=(3,))
    batch = jax.tree.map(jnp.asarray, task.examples(Dataset({}, {}, {}))["train"])
    assert batch.keys() == {"code"}
    assert task.augment(dict(batch), jax.random.key(0))["code"] is batch["code"]


@pytest.mark.parametrize("count", [1, 3])
def test_the_noise_of_a_sample_does_not_depend_on_how_many_are_drawn(perturbed, count):
    noise = functools.partial(perturbed.noise, jax.random.key(7))
    np.testing.assert_array_equal(noise(count), noise(5)[:count])
