"""The ladder against closed forms, and against itself done another way."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import tiny

from vaejax import objectives
from vaejax.config import Config
from vaejax.evaluation import make_importance_bound
from vaejax.evidence import Evidence, evidence
from vaejax.likelihoods import build_likelihood
from vaejax.models import Ladder, build_model, init_params
from vaejax.noise import picture_keys

COUNT = 3


def ladder_config(ladder: dict | None = None, **sections: dict) -> Config:
    """A ladder of five groups at three resolutions, the middle one without any."""
    sections = {
        "data": {"image_size": (28, 20), "channels": 1},
        "model": {"widths": (8, 12, 16), "blocks": (2, 0, 3)},
        "likelihood": {"name": "mixture", "components": 3},
        **sections,
    }
    sections["model"] = {"name": "ladder", **sections["model"]}
    return tiny(ladder={"latent": 2, **(ladder or {})}, prior={"fitted": ()}, **sections)


def away_from_start(model: Ladder, config: Config) -> dict:
    """Parameters at which all that starts small shows."""
    leaves, tree = jax.tree.flatten(init_params(model, config, jax.random.key(0)))
    keys = jax.random.split(jax.random.key(1), len(leaves))
    return tree.unflatten([x + 0.1 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys)])


@pytest.fixture(scope="module")
def ladder() -> tuple[Config, Ladder, dict]:
    """A config, its model and parameters."""
    config = ladder_config()
    model = build_model(config)
    return config, model, away_from_start(model, config)


def pictures(config: Config, count: int = COUNT) -> jax.Array:
    shape = (count, *config.data.image_size, config.data.channels)
    return jnp.asarray(np.random.default_rng(0).integers(0, 256, shape, np.uint8))


def keys_of(count: int = COUNT, sample: int = 0) -> jax.Array:
    return picture_keys(jax.random.key(7), jnp.arange(count), sample)


def evidence_of(config: Config, model: Ladder, params: dict, keys: jax.Array) -> Evidence:
    return evidence(model, params, build_likelihood(config), pictures(config), keys)


def test_shapes(ladder):
    config, model, params = ladder
    z, std = model.apply({"params": params}, pictures(config), method="posterior")
    assert [leaf.shape for leaf in z] == [(COUNT, 3, 4, 3, 2), (COUNT, 2, 14, 10, 2)]
    assert jax.tree.map(jnp.shape, z) == jax.tree.map(jnp.shape, std)
    assert model.factors() == (24,) * 3 + (280,) * 2
    assert evidence_of(*ladder, keys_of()).inference.kl.shape == (COUNT, 5)


def test_a_pictures_terms_do_not_depend_on_its_company(ladder):
    config, model, params = ladder
    together = evidence_of(*ladder, keys_of())
    alone = evidence(model, params, build_likelihood(config), pictures(config)[1:2], keys_of()[1:2])
    np.testing.assert_allclose(alone.elbo()[0], together.elbo()[1], rtol=1e-5)


def test_kl_in_closed_form_is_the_mean_of_what_samples_say(ladder):
    config, model, params = ladder
    terms = jax.lax.map(
        lambda sample: _both_kls(evidence_of(config, model, params, keys_of(sample=sample))),
        jnp.arange(3000),
    )
    closed, sampled = (np.asarray(x, np.float64) for x in terms)
    error = (sampled - closed).std(0) / np.sqrt(len(closed))
    assert np.all(np.abs(sampled.mean(0) - closed.mean(0)) < 4 * error)
    assert np.all(error < 0.02 * closed.mean(0)), "too few samples to tell"


def _both_kls(terms: Evidence) -> tuple[jax.Array, jax.Array]:
    return jnp.sum(terms.inference.kl, axis=1), terms.inference.log_ratio


def test_with_one_group_it_is_a_plain_vae():
    config = ladder_config(model={"widths": (8, 12, 16), "blocks": (0, 0, 1)})
    model = build_model(config)
    params = away_from_start(model, config)
    variables, images, likelihood = {"params": params}, pictures(config), build_likelihood(config)
    (mean,), (std,) = model.apply(variables, images, method="posterior")
    (z,), _ = model.apply(variables, images, keys_of(), method="posterior")
    # The prior is one Gaussian for all pictures: what noise 0 and 1 become.
    (prior_mean,) = model.apply(variables, (jnp.zeros_like(z),), method="from_noise")
    (prior_end,) = model.apply(variables, (jnp.ones_like(z),), method="from_noise")
    np.testing.assert_allclose(prior_mean[0], prior_mean[1], atol=1e-6)
    flat = [x.reshape(COUNT, -1) for x in (z, mean, std, prior_mean, prior_end - prior_mean)]
    z_flat, mean, std, prior_mean, prior_std = flat
    kl = objectives.standard_kl((mean - prior_mean) / prior_std, jnp.log(std / prior_std))
    pixels = model.apply(variables, (z,), method="decode")
    expected = likelihood.log_prob(images, pixels) - jnp.sum(kl, axis=1)
    terms = evidence_of(config, model, params, keys_of())
    np.testing.assert_allclose(terms.elbo(), expected, rtol=1e-5)
    log_ratio = objectives.gaussian_log_prob(
        z_flat, mean, jnp.log(std)
    ) - objectives.gaussian_log_prob(z_flat, prior_mean, jnp.log(prior_std))
    np.testing.assert_allclose(terms.inference.log_ratio, log_ratio, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("remat", [False, True])
def test_looped_and_unrolled_are_the_same(ladder, remat):
    config, looped, params = ladder

    def loss(model: Ladder, params: dict) -> jax.Array:
        return -jnp.mean(evidence_of(config, model, params, keys_of()).elbo())

    value, slopes = jax.value_and_grad(loss, argnums=1)(looped, params)
    other = looped.clone(scan=False, remat=remat)
    other_value, other_slopes = jax.value_and_grad(loss, argnums=1)(other, params)
    np.testing.assert_allclose(value, other_value, rtol=1e-6)
    scale = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(slopes))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5 * scale),
        slopes,
        other_slopes,
    )


def test_latents_and_noise_are_inverse(ladder):
    _, model, params = ladder
    variables = {"params": params}
    z = model.apply(variables, jax.random.key(0), COUNT, method="sample_prior")
    noise = model.apply(variables, z, method="to_noise")
    back = model.apply(variables, noise, method="from_noise")
    for a, b in zip(z, back):
        np.testing.assert_allclose(a, b, atol=1e-4)
    for leaf in noise:
        assert abs(float(jnp.mean(leaf))) < 0.3 and 0.7 < float(jnp.std(leaf)) < 1.3


def test_sampling_group_by_group_is_sampling_at_once(ladder):
    _, model, params = ladder
    variables, groups = {"params": params}, len(model.factors())
    noise = model.apply(variables, keys_of(), method="noise")
    at_once = model.apply(variables, noise, method="from_noise")
    z = jax.tree.map(jnp.zeros_like, noise)
    for group in range(groups):
        kept = jnp.arange(groups) < group
        pixels, z, _ = model.apply(variables, z, kept, noise, jnp.ones(groups), method="generate")
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), z, at_once)
    decoded = model.apply(variables, at_once, method="decode")
    np.testing.assert_allclose(pixels.hidden, decoded.hidden, atol=1e-5)


def test_temperature_scales_the_noise_of_its_own_group(ladder):
    _, model, params = ladder
    variables = {"params": params}
    noise = model.apply(variables, keys_of(), method="noise")
    cold = jnp.asarray([1.0, 1.0, 0.0, 1.0, 1.0])
    z = model.apply(variables, noise, cold, method="from_noise")
    found = model.apply(variables, z, method="to_noise")
    np.testing.assert_allclose(found[0][:, :2], noise[0][:, :2], atol=1e-4)
    np.testing.assert_allclose(found[0][:, 2], 0.0, atol=1e-5)
    np.testing.assert_allclose(found[1], noise[1], atol=1e-4)


@pytest.mark.parametrize("trained", [False, True])
def test_the_bounds_are_ordered(ladder, trained):
    config, model, params = ladder
    if not trained:
        params = init_params(model, config, jax.random.key(0))
    images, likelihood = pictures(config, 8), build_likelihood(config)
    index = jnp.arange(8)

    def mean_of(samples: int, repeats: int) -> float:
        bound = make_importance_bound(model, likelihood, samples)
        values = jax.lax.map(
            lambda i: bound(params, images, index, jax.random.fold_in(jax.random.key(3), i)),
            jnp.arange(repeats),
        )
        return float(jnp.mean(values))

    bounds = [mean_of(1, 64), mean_of(4, 16), mean_of(64, 4)]
    assert bounds == sorted(bounds), bounds
    terms = evidence(model, params, likelihood, images, keys_of(8))
    np.testing.assert_allclose(float(jnp.mean(terms.elbo())), bounds[0], rtol=0.01)


def test_bfloat16_stays_inside_the_networks():
    config = ladder_config(model={"dtype": "bfloat16", "widths": (8, 12), "blocks": (1, 1)})
    model = build_model(config)
    params = init_params(model, config, jax.random.key(0))
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    terms = evidence_of(config, model, params, keys_of())
    assert {leaf.dtype for leaf in jax.tree.leaves(terms)} == {jnp.dtype("float32")}
    z, std = model.apply({"params": params}, pictures(config), method="posterior")
    assert {leaf.dtype for leaf in (*z, *std)} == {jnp.dtype("float32")}


def test_parameters_fit_every_size(ladder):
    """No number belongs to a position, so what was trained on one size can see another."""
    config, _, params = ladder
    data = dataclasses.replace(config.data, image_size=(36, 44))
    larger = dataclasses.replace(config, data=data)
    terms = evidence_of(larger, build_model(larger), params, keys_of())
    assert np.all(np.isfinite(terms.elbo()))


@pytest.mark.parametrize("choice", [{"spread": "exp"}, {"skips": "level"}, {"dropout": 0.3}])
def test_every_parameter_gets_a_gradient(choice):
    config = ladder_config(choice)
    model = build_model(config)
    params = away_from_start(model, config)

    def loss(params: dict) -> jax.Array:
        terms = evidence(
            model, params, build_likelihood(config), pictures(config), keys_of(), dropout=keys_of()
        )
        return -jnp.mean(terms.elbo())

    for path, slope in jax.tree_util.tree_leaves_with_path(jax.grad(loss)(params)):
        assert np.all(np.isfinite(slope)), jax.tree_util.keystr(path)
        assert np.any(slope != 0), jax.tree_util.keystr(path)


def test_dropout_is_for_training_alone():
    config = ladder_config({"dropout": 0.5})
    model = build_model(config)
    params = away_from_start(model, config)
    likelihood, images = build_likelihood(config), pictures(config)
    plain = [evidence(model, params, likelihood, images, keys_of()).elbo() for _ in range(2)]
    dropped = evidence(model, params, likelihood, images, keys_of(), dropout=keys_of()).elbo()
    np.testing.assert_array_equal(*plain)
    assert np.all(np.abs(dropped - plain[0]) > 1.0)
