"""The pure functions of a trained model: composed, at temperature 0, and under `jax.vmap`."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parameters import away_from_start
from tiny import least, tiny_ladder

from vaejax.likelihoods import build_likelihood
from vaejax.models import EXACT, build_model
from vaejax.models.noise import picture_keys
from vaejax.tasks.vae import functions


@pytest.fixture(scope="module", params=[least, tiny_ladder])
def parts(request):
    """Returns a model, its likelihood, its parameters, pictures, and a key for each picture."""
    config = request.param()
    model, likelihood = build_model(config, EXACT), build_likelihood(config)
    pixels = np.random.default_rng(0).integers(0, 256, (3, *config.data.shape), np.uint8)
    keys = picture_keys(jax.random.key(1), jnp.arange(3))
    return model, likelihood, away_from_start(model, config), jnp.asarray(pixels), keys


@functools.cache
def compiled(function, *static):
    return jax.jit(functools.partial(function, *static))


def test_samples_equal_decoded_latents_of_the_prior(parts):
    model, likelihood, params, _, keys = parts
    z = compiled(functions.sample_latents, model)(params, keys, 0.7)
    decoded = np.int32(compiled(functions.decode, model, likelihood)(params, z))
    sampled = np.int32(compiled(functions.sample, model, likelihood)(params, keys, 0.7))
    # Two programs may round a mean that is nearly halfway between two pixel values differently.
    np.testing.assert_allclose(decoded, sampled, rtol=0, atol=1)
    assert np.std(sampled, axis=0).mean() > 1  # each key gives another picture


def test_at_temperature_zero_all_samples_are_the_same(parts):
    model, _, params, _, keys = parts
    sample = compiled(functions.sample_latents, model)
    for one, other in zip(
        *(jax.tree.leaves(sample(params, keys, spread)) for spread in (0.0, 1.0)), strict=True
    ):
        np.testing.assert_allclose(one, np.broadcast_to(one[:1], one.shape), atol=1e-5)
        assert np.all(np.std(other, axis=0) > 0)


def test_posteriors_of_stacked_parameters_equal_those_of_each(parts):
    model, _, params, images, keys = parts
    posterior = compiled(functions.posterior, model)
    each = [params, jax.tree.map(lambda leaf: 2 * leaf, params)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
    together = jax.vmap(lambda params: posterior(params, images, keys))(stacked)
    for number, own in enumerate(each):
        single = jax.tree.leaves(posterior(own, images, keys))
        for one, both in zip(single, jax.tree.leaves(together), strict=True):
            np.testing.assert_allclose(both[number], one, rtol=2e-4, atol=2e-4)
