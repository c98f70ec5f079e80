"""Tests of the ladder against closed forms, and against equivalent computations."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy
from ladders import COUNT, apply, keys_of, pictures
from parameters import away_from_start
from tiny import tiny_ladder

from vaejax.config import Config
from vaejax.likelihoods import build_likelihood
from vaejax.models import Ladder, build_model, init_params
from vaejax.models.noise import fold_in, normal, picture_keys
from vaejax.tasks.vae.evaluation import make_importance_bound
from vaejax.tasks.vae.evidence import Evidence, evidence


@pytest.fixture(scope="module")
def ladder() -> tuple[Config, Ladder, dict]:
    """Returns a config, its model, and parameters away from their initial values."""
    config = tiny_ladder()
    model = build_model(config)
    return config, model, away_from_start(model, config)


@functools.partial(jax.jit, static_argnums=(0, 1))
def evidence_of(
    config: Config, model: Ladder, params: dict, images: jax.Array, keys: jax.Array
) -> Evidence:
    """Returns the terms of the ELBO, under jit."""
    return evidence(model, params, build_likelihood(config), images, keys)


def noise_of(
    model: Ladder, params: dict, temperatures: tuple[float, ...] = (1.0, 1.0, 1.0)
) -> tuple[jax.Array, ...]:
    """Returns noise of the prior, whose groups have these standard deviations."""
    return apply(model, params, "noise", keys_of(), np.float32(temperatures))


def shapes_of(tree: object) -> object:
    return jax.tree.map(lambda leaf: leaf.shape, tree)


def groups_of(levels: tuple) -> list[np.ndarray]:
    """Returns the latents of each group, from the top, given those of each level."""
    return [level[:, i] for level in map(np.asarray, levels) for i in range(level.shape[1])]


def test_latents_have_the_shapes_of_the_levels(ladder):
    config, model, params = ladder
    z, std = jax.eval_shape(
        lambda params, images: apply(model, params, "posterior", images), params, pictures(config)
    )
    assert shapes_of(z) == shapes_of(std) == ((COUNT, 1, 3, 2, 2), (COUNT, 2, 10, 8, 2))
    assert model.factors() == (12, 160, 160)
    terms = jax.eval_shape(
        functools.partial(evidence_of, config, model), params, pictures(config), keys_of()
    )
    assert terms.inference.kl.shape == (COUNT, 3)


def test_the_encoders_last_block_meets_the_decoders_first(ladder):
    """Features are in the decoder's order: a level's last encoder block comes first."""
    config, model, params = ladder
    features = apply(model, params, "features", pictures(config))[-1]
    for block, changed in ((0, [True, False]), (1, [True, True])):
        other = jax.tree.map(np.array, params)
        other["bottom_up_0"]["Conv1x1_0"]["Dense_0"]["bias"][block] += 1.0
        pairs = zip(features, apply(model, other, "features", pictures(config))[-1])
        assert [bool(np.any(a != b)) for a, b in pairs] == changed


def test_a_decoder_block_sees_its_own_encoder_block_or_the_levels_last(ladder):
    config, model, params = ladder
    own = apply(model, params, "features", pictures(config))
    last = apply(model.clone(skips="level"), params, "features", pictures(config))
    # The first decoder block of a level sees its last encoder block, whose features come first.
    np.testing.assert_array_equal(last[1], np.stack([own[1][0]] * 2))
    assert np.any(own[1][0] != own[1][1])


@pytest.mark.parametrize("spread", ["softplus", "exp"])
def test_spread_maps_numbers_to_standard_deviations(ladder, spread):
    config, model, params = ladder
    params = jax.tree.map(np.array, params)
    layer = params["top_down_0"]["posterior_gaussian"]["Dense_0"]
    layer["kernel"][:] = 0.0
    model = model.clone(spread=spread)
    for raw in (-20.0, 0.0, 1.0, 9.0):
        layer["bias"][:] = raw
        _, std = apply(model, params, "posterior", pictures(config))
        expected = np.log2(1 + 2.0**raw) if spread == "softplus" else np.exp(raw)
        np.testing.assert_allclose(std[0], expected + 1e-3, rtol=1e-5)


def test_a_pictures_terms_do_not_depend_on_the_others_of_its_batch(ladder):
    config, model, params = ladder
    images, keys = np.asarray(pictures(config)), keys_of()
    elbo = np.asarray(evidence_of(config, model, params, images, keys).elbo())
    others = np.stack([255 - images[2], images[1], images[0]])
    among_others = np.asarray(evidence_of(config, model, params, others, keys[::-1]).elbo())
    np.testing.assert_allclose(elbo[:2], among_others[:0:-1], rtol=1e-5)
    assert elbo[2] != pytest.approx(among_others[0], rel=1e-4)


@jax.jit
def posterior_noise(keys: jax.Array, latents: tuple) -> list[jax.Array]:
    """Returns the noise of each group's posterior, from the top."""
    shapes = [level.shape[2:] for level in latents for _ in range(level.shape[1])]
    return [normal(fold_in(keys, group), shape) for group, shape in enumerate(shapes)]


def test_the_terms_are_those_of_each_groups_gaussians(ladder):
    """Compares KL and log-ratio with SciPy, for the prior of a group given all groups above."""
    config, model, params = ladder
    images, keys = pictures(config), keys_of()
    z, std = apply(model, params, "posterior", images, keys)
    groups, kl, log_ratio = len(model.factors()), [], np.zeros(COUNT)
    for group, noise in enumerate(posterior_noise(keys, z)):
        above = np.arange(groups) < group
        z_g, q_std, p_mean, p_mean_and_std = (
            groups_of(latents)[group].reshape(COUNT, -1).astype(np.float64)
            for latents in (
                z,
                std,
                apply(model, params, "redraw", z, above, jax.tree.map(np.zeros_like, z))[1],
                apply(model, params, "redraw", z, above, jax.tree.map(np.ones_like, z))[1],
            )
        )
        q_mean, p_std = z_g - q_std * noise.reshape(COUNT, -1), p_mean_and_std - p_mean
        q, p = scipy.stats.norm(q_mean, q_std), scipy.stats.norm(p_mean, p_std)
        # KL(q || p) = E_q[-log p] - H(q), with E_q[(z - m)^2] = s^2 + (q_mean - m)^2.
        cross = np.log(p_std) + 0.5 * np.log(2 * np.pi)
        cross = cross + (q_std**2 + (q_mean - p_mean) ** 2) / (2 * p_std**2)
        kl.append(np.sum(cross - q.entropy(), axis=1))
        log_ratio += np.sum(q.logpdf(z_g) - p.logpdf(z_g), axis=1)
    terms = evidence_of(config, model, params, images, keys)
    np.testing.assert_allclose(terms.inference.kl, np.stack(kl, axis=1), rtol=1e-3)
    np.testing.assert_allclose(terms.inference.log_ratio, log_ratio, rtol=1e-3, atol=1e-2)
    decoded = jax.jit(build_likelihood(config).log_prob)(images, apply(model, params, "decode", z))
    np.testing.assert_allclose(terms.log_likelihood, decoded, rtol=1e-5)
    np.testing.assert_allclose(terms.elbo(), decoded - np.sum(kl, axis=0), rtol=1e-4)


def test_latents_and_noise_are_inverse(ladder):
    _, model, params = ladder
    noise = noise_of(model, params)
    z = apply(model, params, "from_noise", noise)
    noise_again = apply(model, params, "to_noise", z)
    z_again = apply(model, params, "from_noise", noise_again)
    for a, b, c, d in zip(z, z_again, noise, noise_again):
        np.testing.assert_allclose(a, b, atol=1e-4)
        np.testing.assert_allclose(c, d, atol=1e-4)


def test_sampling_group_by_group_is_sampling_at_once(ladder):
    _, model, params = ladder
    groups = len(model.factors())
    noise = noise_of(model, params)
    at_once = apply(model, params, "from_noise", noise)
    z = jax.tree.map(np.zeros_like, noise)
    for group in range(groups):
        kept = np.arange(groups) < group
        pixels, z, _ = apply(model, params, "redraw", z, kept, noise)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), z, at_once)
    for other in (
        apply(model, params, "decode", at_once),
        apply(model, params, "generate", noise),
    ):
        np.testing.assert_allclose(pixels.hidden, other.hidden, atol=1e-5)


def test_noise_of_the_prior_is_not_that_of_the_posterior(ladder):
    """Otherwise latents redrawn from the prior would repeat posterior noise of the same seed."""
    config, model, params = ladder
    z, std = apply(model, params, "posterior", pictures(config), keys_of())
    mean, _ = apply(model, params, "posterior", pictures(config))
    # The posterior mean of the top group depends on no sample, so its noise can be computed.
    z, mean, std = (np.asarray(levels[0]) for levels in (z, mean, std))
    of_posterior = np.ravel((z - mean) / std)
    of_prior = np.ravel(noise_of(model, params)[0])
    assert abs(np.corrcoef(of_posterior, of_prior)[0, 1]) < 0.5


def test_temperature_scales_the_noise_of_its_own_group(ladder):
    _, model, params = ladder
    noise = groups_of(noise_of(model, params))
    cold = groups_of(noise_of(model, params, (1.0, 0.0, 0.5)))
    np.testing.assert_array_equal(cold[0], noise[0])
    np.testing.assert_array_equal(cold[1], 0.0)
    np.testing.assert_allclose(cold[2], 0.5 * noise[2], rtol=1e-6)


def test_the_importance_bound_is_the_log_of_the_mean_weight_of_its_samples(ladder):
    config, model, params = ladder
    images, index, key, samples = pictures(config), jnp.arange(COUNT), jax.random.key(3), 4
    bound = jax.jit(make_importance_bound(model, build_likelihood(config), samples))
    log_weights = [
        evidence_of(config, model, params, images, picture_keys(key, index, sample)).log_weight()
        for sample in range(1, samples + 1)
    ]
    expected = scipy.special.logsumexp(np.float64(log_weights), axis=0) - np.log(samples)
    np.testing.assert_allclose(bound(params, images, index, key), expected, rtol=1e-5)
    assert np.ptp(log_weights, axis=0).min() > 1e-3 * np.abs(expected).max()


def test_parameters_fit_every_size(ladder):
    """No parameter belongs to a position, so the same ones apply to pictures of another size."""
    config, _, params = ladder
    data = dataclasses.replace(config.data, image_size=(24, 16))
    larger = dataclasses.replace(config, data=data)
    others = functools.partial(init_params, build_model(larger), larger)
    assert shapes_of(jax.eval_shape(others, jax.random.key(0))) == shapes_of(params)
