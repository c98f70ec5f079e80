"""Tests of the ladder against closed forms, and against equivalent computations."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ladders import COUNT, apply, keys_of, pictures
from parameters import away_from_start, start
from tiny import LADDER, tiny_ladder

from vaejax import objectives
from vaejax.config import Config
from vaejax.likelihoods import build_likelihood
from vaejax.models import Ladder, build_model
from vaejax.runtime.mesh import make_mesh
from vaejax.tasks.vae import NET, vae_task
from vaejax.tasks.vae.evaluation import make_importance_bound
from vaejax.tasks.vae.evidence import Evidence, evidence
from vaejax.training.state import starting
from vaejax.training.step import make_train_step


@pytest.fixture(scope="module")
def ladder() -> tuple[Config, Ladder, dict]:
    """Returns a config, its model, and parameters away from their initial values."""
    config = tiny_ladder()
    model = build_model(config)
    return config, model, away_from_start(model, config)


def evidence_of(
    config: Config,
    model: Ladder,
    params: dict,
    keys: jax.Array,
    images: jax.Array | None = None,
    dropout: jax.Array | None = None,
) -> Evidence:
    """Returns the terms of the ELBO for `images`, by default `pictures(config)`, under jit."""
    images = pictures(config) if images is None else images
    terms = functools.partial(evidence, model, likelihood=build_likelihood(config))
    return jax.jit(lambda params: terms(params, images=images, keys=keys, dropout=dropout))(params)


def test_shapes(ladder):
    config, model, params = ladder
    z, std = apply(model, params, "posterior", pictures(config))
    assert [leaf.shape for leaf in z] == [(COUNT, 1, 3, 2, 2), (COUNT, 2, 10, 8, 2)]
    assert jax.tree.map(jnp.shape, z) == jax.tree.map(jnp.shape, std)
    assert model.factors() == (12, 160, 160)
    assert evidence_of(*ladder, keys_of()).inference.kl.shape == (COUNT, 3)


def test_the_encoders_last_block_meets_the_decoders_first(ladder):
    """Features are in the decoder's order: a level's last encoder block comes first."""
    config, model, params = ladder
    bias = params["bottom_up_0"]["Conv1x1_0"]["Dense_0"]["bias"]
    for block, moved in ((0, [True, False]), (1, [True, True])):
        other = jax.tree.map(lambda leaf: leaf, params)
        other["bottom_up_0"]["Conv1x1_0"]["Dense_0"]["bias"] = bias.at[block].add(1.0)
        pairs = [apply(model, p, "features", pictures(config))[-1] for p in (params, other)]
        assert [bool(np.any(a != b)) for a, b in zip(*pairs)] == moved


def test_a_decoder_block_sees_its_own_encoder_block_or_the_levels_last(ladder):
    _, model, params = ladder
    own = apply(model, params, "features", pictures(ladder[0]))
    last = apply(model.clone(skips="level"), params, "features", pictures(ladder[0]))
    # The first decoder block of a level sees its last encoder block, whose features come first.
    np.testing.assert_array_equal(last[1], np.stack([own[1][0]] * 2))
    assert np.any(own[1][0] != own[1][1])


@pytest.mark.parametrize("spread", ["softplus", "exp"])
def test_what_makes_a_standard_deviation_of_a_number(ladder, spread):
    config, model, params = ladder
    params = jax.tree.map(lambda leaf: leaf, params)
    layer = params["top_down_0"]["posterior_gaussian"]["Dense_0"]
    layer["kernel"] = jnp.zeros_like(layer["kernel"])
    images, model = pictures(config), model.clone(spread=spread)
    for raw in (-20.0, 0.0, 1.0, 9.0):
        layer["bias"] = jnp.full_like(layer["bias"], raw)
        _, std = apply(model, params, "posterior", images)
        expected = np.log2(1 + 2.0**raw) if spread == "softplus" else np.exp(raw)
        np.testing.assert_allclose(std[0], expected + 1e-3, rtol=1e-5)


def test_residual_branches_start_the_smaller_the_more_there_are():
    norms = {}
    for depth in (1, 16):
        config = tiny_ladder(model={"widths": (64,), "blocks": (depth,), "patch": 4})
        params = start(build_model(config), config)
        for stack, layers in (("bottom_up_0", ["Conv1x1_0"]),
                              ("top_down_0", ["Conv1x1_0", "latents", "residual"])):  # fmt: skip
            for layer in layers:
                kernel = params[stack][layer]["Dense_0"]["kernel"]
                norms.setdefault((stack, layer), []).append(np.std(kernel))
    for of_one, of_sixteen in norms.values():
        np.testing.assert_allclose(of_sixteen, of_one / 4, rtol=0.2)


def test_a_pictures_terms_do_not_depend_on_its_company(ladder):
    config, *_ = ladder
    together = evidence_of(*ladder, keys_of())
    alone = evidence_of(*ladder, keys_of()[1:2], pictures(config)[1:2])
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
    assert np.all(error < 0.02 * closed.mean(0)), "too few samples for a precise estimate"


def _both_kls(terms: Evidence) -> tuple[jax.Array, jax.Array]:
    return jnp.sum(terms.inference.kl, axis=1), terms.inference.log_ratio


def test_with_one_group_it_is_a_plain_vae():
    config = tiny_ladder(model={"widths": (4, 6, 6), "blocks": (0, 0, 1)})
    model = build_model(config)
    params = away_from_start(model, config)
    images, likelihood = pictures(config), build_likelihood(config)
    (mean,), (std,) = apply(model, params, "posterior", images)
    (z,), _ = apply(model, params, "posterior", images, keys_of())
    # The prior is the same Gaussian for all pictures: noise 0 maps to its mean, 1 to mean + std.
    (prior_mean,) = apply(model, params, "from_noise", (jnp.zeros_like(z),))
    (prior_end,) = apply(model, params, "from_noise", (jnp.ones_like(z),))
    np.testing.assert_allclose(prior_mean[0], prior_mean[1], atol=1e-6)
    flat = [x.reshape(COUNT, -1) for x in (z, mean, std, prior_mean, prior_end - prior_mean)]
    z_flat, mean, std, prior_mean, prior_std = flat
    kl = objectives.standard_kl((mean - prior_mean) / prior_std, jnp.log(std / prior_std))
    pixels = apply(model, params, "decode", (z,))
    expected = likelihood.log_prob(images, pixels) - jnp.sum(kl, axis=1)
    terms = evidence_of(config, model, params, keys_of())
    np.testing.assert_allclose(terms.elbo(), expected, rtol=1e-5)
    log_ratio = objectives.gaussian_log_prob(
        z_flat, mean, jnp.log(std)
    ) - objectives.gaussian_log_prob(z_flat, prior_mean, jnp.log(prior_std))
    np.testing.assert_allclose(terms.inference.log_ratio, log_ratio, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("how", [(False, False), (False, True), (True, True)])
def test_looped_or_computed_again_it_is_the_same(ladder, how):
    config, looped, params = ladder

    def loss(model: Ladder) -> Callable[[dict], jax.Array]:
        terms = functools.partial(evidence, model, likelihood=build_likelihood(config))
        return jax.jit(
            jax.value_and_grad(
                lambda params: (
                    -jnp.mean(terms(params, images=pictures(config), keys=keys_of()).elbo())
                )
            )
        )

    value, slopes = loss(looped)(params)
    other = looped.clone(**dict(zip(("scan", "remat"), how)))
    other_value, other_slopes = loss(other)(params)
    np.testing.assert_allclose(value, other_value, rtol=1e-6)
    scale = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(slopes))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5 * scale),
        slopes,
        other_slopes,
    )


def test_latents_and_noise_are_inverse(ladder):
    _, model, params = ladder
    noise = apply(model, params, "noise", keys_of())
    z = apply(model, params, "from_noise", noise)
    found = apply(model, params, "to_noise", z)
    back = apply(model, params, "from_noise", found)
    for a, b, c, d in zip(z, back, noise, found):
        np.testing.assert_allclose(a, b, atol=1e-4)
        np.testing.assert_allclose(c, d, atol=1e-4)


def test_sampling_group_by_group_is_sampling_at_once(ladder):
    _, model, params = ladder
    groups = len(model.factors())
    noise = apply(model, params, "noise", keys_of())
    at_once = apply(model, params, "from_noise", noise)
    z = jax.tree.map(jnp.zeros_like, noise)
    for group in range(groups):
        kept = jnp.arange(groups) < group
        pixels, z, _ = apply(model, params, "redraw", z, kept, noise)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), z, at_once)
    for other in (
        apply(model, params, "decode", at_once),
        apply(model, params, "generate", noise),
    ):
        np.testing.assert_allclose(pixels.hidden, other.hidden, atol=1e-5)


def test_noise_of_the_prior_is_not_that_of_the_posterior(ladder):
    """Otherwise latents redrawn from the prior would repeat posterior noise of the same seed."""
    _, model, params = ladder
    keys = keys_of(100)
    z, std = apply(model, params, "posterior", pictures(ladder[0], 100), keys)
    mean, _ = apply(model, params, "posterior", pictures(ladder[0], 100))
    # The posterior mean of the top group depends on no sample, so its noise can be computed.
    of_posterior = np.ravel((z[0] - mean[0]) / std[0])
    of_prior = np.ravel(apply(model, params, "noise", keys)[0])
    assert abs(np.corrcoef(of_posterior, of_prior)[0, 1]) < 0.15


def test_temperature_scales_the_noise_of_its_own_group(ladder):
    _, model, params = ladder
    noise = apply(model, params, "noise", keys_of())
    cold = apply(model, params, "noise", keys_of(), jnp.asarray([1.0, 0.0, 0.5]))
    np.testing.assert_array_equal(cold[0], noise[0])
    np.testing.assert_array_equal(cold[1][:, 0], 0.0)
    np.testing.assert_allclose(cold[1][:, 1], 0.5 * noise[1][:, 1], rtol=1e-6)


def test_the_bounds_are_ordered(ladder):
    config, model, params = ladder
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
    terms = evidence_of(config, model, params, keys_of(8), images)
    np.testing.assert_allclose(float(jnp.mean(terms.elbo())), bounds[0], rtol=0.01)


def test_bfloat16_stays_inside_the_networks():
    config = tiny_ladder(model={"dtype": "bfloat16", "widths": (4, 6), "blocks": (1, 1)})
    model = build_model(config)
    params = start(model, config)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    terms = evidence_of(config, model, params, keys_of())
    assert {leaf.dtype for leaf in jax.tree.leaves(terms)} == {jnp.dtype("float32")}
    z, std = apply(model, params, "posterior", pictures(config))
    assert {leaf.dtype for leaf in (*z, *std)} == {jnp.dtype("float32")}


def test_a_step_in_bfloat16_looped_and_computed_again():
    """The larger ladder configs, for accelerators, train with these settings."""
    config = tiny_ladder(
        model={
            "dtype": "bfloat16",
            "widths": (4,),
            "blocks": (2,),
            "scan": True,
            "remat": True,
        },
    )
    task = vae_task(config)
    train_step = make_train_step(task, config.train, make_mesh(config.train.batch_size))
    carry = jax.jit(starting(task))(jax.random.key(0))
    before = jax.device_get(carry.state.nets[NET].params)
    batch = {"image": pictures(config, config.train.batch_size)[None]}
    (state, _), loss = train_step(carry, batch)
    net = state.nets[NET]
    assert np.isfinite(loss) and state.skipped() == 0
    moved = jax.tree.map(lambda old, new: bool(np.any(old != new)), before, net.params)
    assert all(jax.tree.leaves(moved)), moved
    assert {leaf.dtype for leaf in jax.tree.leaves(net.moments)} == {jnp.dtype("float32")}


def test_parameters_fit_every_size(ladder):
    """No parameter belongs to a position, so the same ones apply to pictures of another size."""
    config, _, params = ladder
    data = dataclasses.replace(config.data, image_size=(24, 16))
    larger = dataclasses.replace(config, data=data)
    terms = evidence_of(larger, build_model(larger), params, keys_of())
    assert np.all(np.isfinite(terms.elbo()))


@pytest.mark.parametrize("choice", [{"spread": "exp"}, {"skips": "level"}, {"dropout": 0.3}])
def test_every_parameter_gets_a_gradient(choice):
    config = tiny_ladder(model={**LADDER["model"], **choice})
    model = build_model(config)
    params = away_from_start(model, config)

    def loss(params: dict) -> jax.Array:
        return -jnp.mean(evidence_of(config, model, params, keys_of(), dropout=keys_of()).elbo())

    for path, slope in jax.tree_util.tree_leaves_with_path(jax.grad(loss)(params)):
        assert np.all(np.isfinite(slope)), jax.tree_util.keystr(path)
        assert np.any(slope != 0), jax.tree_util.keystr(path)
