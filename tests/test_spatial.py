"""Maps of latents: their layout, their KL, what training adds to them, and a whole run."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy
from commands import assert_one_line, command
from flax import linen as nn
from hypothesis import given, settings
from hypothesis import strategies as st
from ladders import apply, keys_of, pictures
from parameters import away_from_start
from tiny import flags_of, metrics, tiny

import vaejax
from vaejax import objectives
from vaejax.config import Config, DataConfig, SpatialConfig
from vaejax.likelihoods import Pixels, build_likelihood
from vaejax.models import VAE, Codes, build_model
from vaejax.priors import StandardNormal
from vaejax.runtime.mesh import single_device_mesh
from vaejax.tasks.augmentation import masked
from vaejax.tasks.vae import NET, vae_task
from vaejax.tasks.vae.evaluation import make_eval_step
from vaejax.tasks.vae.evidence import evidence, per_factor, sums_of

# 5 x 4 positions of 4 x 4 pixels; the last row lies partly outside of the pictures.
SMALL = {"data": {"image_size": (18, 16), "channels": 1}, "model": {"widths": (8, 12), "patch": 2}}
LATENT_SHAPE = (5, 4, 2)


def small(**objective: float) -> Config:
    return tiny("spatial", **SMALL, objective=objective)


@pytest.fixture(scope="module")
def spatial():
    """Returns a small model with its config and random parameters."""
    config = small()
    model = build_model(config)
    return config, model, away_from_start(model, config)


# The layout


@settings(max_examples=10)
@given(
    size=st.tuples(st.integers(16, 70), st.integers(16, 70)),
    levels=st.integers(1, 3),
    patch=st.sampled_from([1, 2, 4]),
)
def test_the_map_has_the_shape_that_the_config_says(size, levels, patch):
    widths, blocks = (2, 3, 4)[:levels], (0,) * levels
    config = Config(
        data=DataConfig(image_size=size),
        model=SpatialConfig(widths=widths, blocks=blocks, patch=patch, latent=3),
        prior=tiny("spatial").prior,
    )
    rows, columns, channels = config.latent_shape
    unit = patch * 2 ** (levels - 1)
    assert (rows - 1) * unit < size[0] <= rows * unit
    assert (columns - 1) * unit < size[1] <= columns * unit
    model = build_model(config)
    images = jax.ShapeDtypeStruct((2, *size, 3), jnp.uint8)

    def there_and_back(images):
        params = model.init(jax.random.key(0), images)
        codes = model.apply(params, images, method="encode")
        return codes, model.apply(params, codes[0], method="decode").location

    codes, location = jax.eval_shape(there_and_back, images)
    assert all(code.shape == (2, rows * columns * channels) for code in codes)
    assert location.shape == (2, *size, 3) and location.dtype == jnp.float32


@pytest.fixture(scope="module")
def without_blocks():
    """Returns a model without residual blocks, with its config and random parameters."""
    config = tiny("spatial", **{**SMALL, "model": {**SMALL["model"], "blocks": (0, 0)}})
    model = build_model(config)
    return config, model, away_from_start(model, config)


def test_codes_hold_the_positions_row_by_row(without_blocks):
    """A position depends on its own square of pixels alone."""
    config, model, params = without_blocks
    image = np.asarray(pictures(config, 1))
    places = [(0, 0), (0, 3), (2, 1), (4, 3)]
    changed = np.repeat(image, len(places), axis=0)
    for number, (row, column) in enumerate(places):
        square = changed[number, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
        square[:] = 255 - square
    before, after = (
        apply(model, params, "encode", jnp.asarray(each))[0].reshape(-1, *LATENT_SHAPE)
        for each in (image, changed)
    )
    differs = np.any(before != after, axis=-1)
    expected = np.zeros((len(places), *LATENT_SHAPE[:2]), bool)
    for number, place in enumerate(places):
        expected[number][place] = True
    np.testing.assert_array_equal(differs, expected)


def test_a_position_is_decoded_to_its_own_place(without_blocks):
    _, model, params = without_blocks
    z = np.zeros((2, *LATENT_SHAPE), np.float32)
    z[1, 2, 1] = 1.0
    location = apply(model, params, "decode", jnp.asarray(z.reshape(2, -1))).location
    rows, columns, _ = np.nonzero(location[0] != location[1])
    # 3 x 3 positions of 4 pixels by the first convolution, and a square of 2 around by the last.
    assert (rows.min(), rows.max()) == (4 - 2, 15 + 2)
    assert (columns.min(), columns.max()) == (0, 11 + 2)


def test_every_parameter_gets_a_gradient(spatial):
    config, model, params = spatial
    images, keys = pictures(config, 4), keys_of(4)

    def loss(params):
        terms = evidence(model, params, build_likelihood(config), images, keys, latent_noise=0.1)
        return -jnp.sum(terms.elbo())

    for path, gradient in jax.tree_util.tree_leaves_with_path(jax.jit(jax.grad(loss))(params)):
        assert np.any(gradient != 0), jax.tree_util.keystr(path)
        assert np.all(np.isfinite(gradient)), jax.tree_util.keystr(path)


# The KL term and the information, by channel


@pytest.fixture(scope="module")
def terms(spatial):
    config, model, params = spatial
    look = jax.jit(functools.partial(evidence, model), static_argnums=1)
    return look(params, build_likelihood(config), pictures(config), keys_of())


def test_each_channel_is_a_factor_of_the_prior(spatial, terms):
    """Compares the KL of each channel with the closed form of SciPy's Gaussians."""
    config, model, params = spatial
    assert model.factors() == (20, 20) and model.code_shape() == LATENT_SHAPE
    mean, log_std = (
        np.float64(code).reshape(-1, *LATENT_SHAPE)
        for code in apply(model, params, "encode", pictures(config))
    )
    # KL(q || N(0, I)) = E_q[z^2] / 2 + log(2 pi) / 2 - H(q).
    entropy = scipy.stats.norm(mean, np.exp(log_std)).entropy()
    kl = 0.5 * (mean**2 + np.exp(2 * log_std) + np.log(2 * np.pi)) - entropy
    np.testing.assert_allclose(terms.inference.kl, kl.sum(axis=(1, 2)), rtol=1e-4)
    np.testing.assert_allclose(terms.inference.codes.mean, mean, rtol=1e-5)


def test_the_metrics_have_the_information_of_each_channel(spatial, terms):
    config, _, _ = spatial
    images = pictures(config)
    sums = sums_of(terms, build_likelihood(config), images, jnp.ones(len(images)))
    found = per_factor(jax.device_get(sums))
    of_dimensions = objectives.latent_usage(sums.moments).information
    assert of_dimensions.shape == LATENT_SHAPE
    assert list(found) == ["information_per_channel"]
    np.testing.assert_allclose(*found.values(), of_dimensions.sum(axis=(0, 1)))


# What training adds


class Echo(nn.Module):
    """Returns its input."""

    def __call__(self, x):
        return x


class CodeAsPicture(nn.Module):
    """A head whose location is what the decoder was given."""

    def __call__(self, z):
        return Pixels(z[:, None, None], jnp.zeros((1, 1, 1, 1)))


SHAPE = (16, 16, 2)


@functools.partial(jax.jit, static_argnums=2)
def decoder_input(codes: Codes, keys: jax.Array, latent_noise: float):
    model = VAE(Echo(), Echo(), CodeAsPicture(), StandardNormal(512), SHAPE)
    return model.apply({}, codes, keys, latent_noise=latent_noise, method="infer")


def test_latent_noise_has_a_share_of_the_standard_deviation_of_each_channel():
    rng = np.random.default_rng(0)
    count, scales = 500, np.float32([0.5, 3.0])
    mean = rng.normal(size=(count, *SHAPE)).astype(np.float32) * scales
    log_std = np.full_like(mean, np.log(0.2))
    codes, keys = Codes(mean.reshape(count, -1), log_std.reshape(count, -1)), keys_of(count)
    plain, noisy = decoder_input(codes, keys, 0.0), decoder_input(codes, keys, 0.4)
    # The terms of the bound are those of the codes without the noise.
    np.testing.assert_array_equal(plain.kl, noisy.kl)
    np.testing.assert_array_equal(plain.log_ratio, noisy.log_ratio)
    noise = np.reshape(np.subtract(noisy.pixels.location, plain.pixels.location), (count, *SHAPE))
    shares = noise.std(axis=(1, 2)) / np.sqrt(scales**2 + 0.2**2)
    assert np.corrcoef(shares.T)[0, 1] > 0.95, "a picture has one share for all channels"
    assert scipy.stats.kstest(shares.mean(axis=1) / 0.4, "uniform").pvalue > 0.01
    assert abs(np.mean(noise / noise.std(axis=(0, 1, 2)))) < 0.01
    # Of a picture's own key: in another order, each has the same noise.
    turned = decoder_input(Codes(*(code[::-1] for code in codes)), keys[::-1], 0.4)
    expected = noisy.pixels.location[::-1]
    np.testing.assert_allclose(turned.pixels.location, expected, rtol=1e-4, atol=1e-4)


def test_the_standard_deviation_of_codes_is_that_of_samples_and_has_no_gradient():
    rng = np.random.default_rng(1)
    mean = rng.normal(size=(50, 4, 3, 2)).astype(np.float32) * np.float32([1.0, 5.0]) + 2.0
    log_std = rng.normal(size=mean.shape).astype(np.float32) - 1.0
    samples = mean + np.exp(log_std) * rng.normal(size=(2000, *mean.shape))
    std = jax.jit(objectives.code_std)(mean, log_std)
    np.testing.assert_allclose(std, samples.std(axis=(0, 1, 2, 3)), rtol=0.01)
    gradients = jax.jit(jax.grad(lambda *codes: jnp.sum(objectives.code_std(*codes)), (0, 1)))
    assert not any(np.any(gradient) for gradient in gradients(mean, log_std))


def test_a_mask_hides_whole_squares_of_each_picture_by_its_own_key():
    count, share = 400, 0.3
    images = jnp.full((count, 20, 24, 3), 7, jnp.uint8)
    hidden = jax.jit(masked, static_argnums=2)(images, keys_of(count), share) == 128
    squares = np.stack([hidden[:, 8 * i : 8 * i + 8, 8 * j : 8 * j + 8].reshape(count, -1)
                        .mean(axis=1) for i in range(3) for j in range(3)], axis=1)  # fmt: skip
    assert set(np.unique(squares)) == {0.0, 1.0}
    # Each of 3,600 squares with the probability 0.3: a standard error of 0.008.
    assert abs(squares.mean() - share) < 0.03
    assert np.all(np.abs(squares.mean(axis=0) - share) < 0.12)
    assert len(np.unique(squares, axis=0)) > 100
    few = jax.jit(masked, static_argnums=2)(images[:3], keys_of(3), share) == 128
    np.testing.assert_array_equal(few, hidden[:3])


def test_training_masks_the_encoders_input_and_adds_latent_noise(spatial):
    config, model, params = spatial
    images, keys = pictures(config), keys_of()
    likelihood = build_likelihood(config)

    @jax.jit
    def expected(images, keys):
        seen = masked(images, keys, 0.5)
        terms = evidence(model, params, likelihood, images, keys, seen=seen, latent_noise=0.3)
        return -jnp.mean(terms.elbo()) / images[0].size

    def loss_of(task):
        of = jax.jit(lambda params: task.loss(NET, params, batch, keys, jnp.int32(0))[0])
        return of({NET: params})

    batch = {"image": images}
    loss = loss_of(vae_task(small(mask=0.5, latent_noise=0.3)))
    np.testing.assert_allclose(loss, expected(images, keys), rtol=1e-5)
    assert abs(loss - loss_of(vae_task(config))) > 1e-4
    assert "seen" not in vae_task(config).intermediates()


def test_evaluation_neither_masks_nor_adds_noise(spatial):
    """Its program is the same whatever the objective is."""
    config, _, params = spatial
    arrays = params, params, pictures(config), jnp.arange(3), jnp.ones(3, bool)
    programs = {
        make_eval_step(each, single_device_mesh()).lower(*arrays).as_text()
        for each in (config, small(mask=0.5, latent_noise=0.3))
    }
    assert len(programs) == 1


# A run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Trains a small model in two starts, and returns its work directory."""
    workdir = tmp_path_factory.mktemp("spatial")
    objective = {"mask": 0.25, "latent_noise": 0.2, "free_bits": 0.01}
    flow = {"steps": 50, "width": 16, "blocks": 1, "head_size": 8}
    for steps in (6, 12):
        flags = flags_of("spatial", **SMALL, objective=objective, flow=flow, train={"steps": steps})
        result = command("main", *flags, f"--workdir={workdir}")
        assert result.returncode == 0, result.stderr
    assert "training from step 6 to 12" in result.stderr
    return workdir


@pytest.fixture(scope="module")
def model(run):
    return vaejax.load(run)


@pytest.mark.slow
def test_a_run_trains_resumes_and_samples(run, model):
    last = [line for line in metrics(run) if line["split"] == "train"][-1]
    assert last["step"] == 12 and len(last["information_per_channel"]) == 2
    np.testing.assert_allclose(sum(last["information_per_channel"]), last["information_nats"])
    faces = model.sample(3)
    mean, std = model.encode(faces)
    assert mean.shape == std.shape == (3, 40) and model.config.latent_shape == LATENT_SHAPE
    np.testing.assert_array_equal(model.decode(mean), model.reconstruct(faces))
    assert model.sample(3, prior="gaussian").shape == faces.shape


@pytest.mark.slow
def test_a_flow_is_fitted_to_the_maps(run, model):
    result = command("fit", f"--workdir={run}", "--prior=flow_matching")
    assert result.returncode == 0, result.stderr
    assert model.sample(3, prior="flow_matching").shape == (3, *model.config.data.shape)


@pytest.mark.slow
def test_a_run_is_evaluated_with_midpoints_and_not_explored(run, model):
    flags = ("--metrics=likelihood,thumbnails", "--samples=20", "--importance_samples=2")
    result = command("evaluate", f"--workdir={run}", *flags)
    assert result.returncode == 0, result.stderr
    (path,) = (run / "evaluations").glob("*.json")
    report = json.loads(path.read_text())
    assert "information_per_channel" in report["curves"]
    assert any("midpoints" in figure["name"] for figure in report["figures"])
    assert_one_line(command("explore", f"--workdir={run}"), "latents are one array")
