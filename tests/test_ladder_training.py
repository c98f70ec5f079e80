"""Gradients of the ladder, and its dtypes, with each way to run its blocks in training."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxprs import dtypes_of_products
from ladders import keys_of, pictures
from parameters import away_from_start
from tiny import LADDER, tiny_ladder

from vaejax.config import Config
from vaejax.likelihoods import build_likelihood
from vaejax.models import Ladder, build_model, init_params
from vaejax.runtime.mesh import make_mesh
from vaejax.tasks.vae import NET, VAETask, vae_task
from vaejax.tasks.vae.evidence import evidence
from vaejax.training.state import Carry, starting
from vaejax.training.step import make_train_step


@pytest.fixture(scope="module")
def ladder() -> tuple[Config, Ladder, dict]:
    """Returns the config, model and random parameters of a ladder of two equal blocks."""
    config = tiny_ladder(model={"widths": (4,), "blocks": (2,)})
    model = build_model(config)
    return config, model, away_from_start(model, config)


def loss_of(config: Config, model: Ladder, params: dict, dropout: jax.Array | None = None):
    """Returns the mean negative ELBO of some pictures."""
    images, likelihood = pictures(config), build_likelihood(config)
    return -jnp.mean(evidence(model, params, likelihood, images, keys_of(), dropout=dropout).elbo())


@pytest.fixture(scope="module")
def loss_and_gradient(ladder) -> tuple[np.ndarray, dict]:
    """Returns the loss of `ladder` and its gradient."""
    config, model, params = ladder
    function = jax.jit(jax.value_and_grad(functools.partial(loss_of, config, model)))
    return jax.device_get(function(params))


@pytest.mark.parametrize("scan", [False, True])
def test_recomputed_activations_give_the_same_gradient_in_a_loop_or_unrolled(
    ladder, loss_and_gradient, scan
):
    """The compared gradient is that of a loop that stores its activations."""
    config, model, params = ladder
    assert model.scan and not model.remat
    other = model.clone(scan=scan, remat=True)
    traced = jax.jit(jax.value_and_grad(functools.partial(loss_of, config, other))).trace(params)
    program = str(traced.jaxpr)
    assert "remat" in program and ("unroll=2" in program) != scan
    value, gradient = jax.device_get(traced.lower().compile()(params))
    expected, expected_gradient = loss_and_gradient
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    scale = max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(expected_gradient))
    for one, two in zip(jax.tree.leaves(gradient), jax.tree.leaves(expected_gradient), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-3, atol=1e-5 * scale)


def assert_every_parameter_has_a_gradient(gradient: dict) -> None:
    for path, slope in jax.tree_util.tree_leaves_with_path(jax.device_get(gradient)):
        assert np.all(np.isfinite(slope)), jax.tree_util.keystr(path)
        assert np.any(slope != 0), jax.tree_util.keystr(path)


def test_every_parameter_gets_a_gradient(loss_and_gradient):
    assert_every_parameter_has_a_gradient(loss_and_gradient[1])


def test_every_parameter_of_all_levels_gets_a_gradient_with_exp_one_skip_and_dropout():
    choices = {"spread": "exp", "skips": "level", "dropout": 0.3}
    config = tiny_ladder(model={**LADDER["model"], **choices})
    model = build_model(config)
    loss = functools.partial(loss_of, config, model, dropout=keys_of())
    assert_every_parameter_has_a_gradient(jax.jit(jax.grad(loss))(away_from_start(model, config)))


def test_the_networks_compute_in_bfloat16_and_their_gaussians_in_float32():
    config = tiny_ladder(model={"dtype": "bfloat16"})
    model = build_model(config)
    params = jax.eval_shape(functools.partial(init_params, model, config), jax.random.key(0))
    inputs = params, pictures(config), keys_of()

    def posterior(params: dict, images: jax.Array, keys: jax.Array) -> tuple:
        return model.apply({"params": params}, images, keys, method="posterior")

    terms = functools.partial(evidence, model, likelihood=build_likelihood(config))
    results = [
        jax.eval_shape(posterior, *inputs),
        jax.eval_shape(
            lambda params, images, keys: terms(params, images=images, keys=keys), *inputs
        ),
    ]
    leaves = jax.tree.leaves((params, results))
    assert {leaf.dtype.name for leaf in leaves} == {"float32"}
    products = dtypes_of_products(posterior, *inputs)
    # The only level that has groups has the last layer of a prior and of a posterior.
    assert products.pop("float32") == 2
    assert set(products) == {"bfloat16"} and products["bfloat16"] > 15


@pytest.fixture(scope="module")
def accelerator_task() -> tuple[VAETask, Carry]:
    """Returns a task with the settings of the larger configs, for accelerators, and its start."""
    settings = {"dtype": "bfloat16", "scan": True, "remat": True}
    task = vae_task(tiny_ladder(model={"widths": (4,), "blocks": (36,), "patch": 4, **settings}))
    return task, jax.device_get(jax.jit(starting(task))(jax.random.key(0)))


def test_residual_branches_start_the_smaller_the_more_there_are(accelerator_task):
    """With 36 blocks, the weights that end a branch are a sixth of those of other layers."""
    _, carry = accelerator_task
    params = carry.state.nets[NET].params
    gains = {
        ("bottom_up_0", "Conv1x1_0"): 1 / 6,
        ("top_down_0", "Conv1x1_0"): 1 / 6,
        ("top_down_0", "latents"): 1 / 6,
        ("top_down_0", "residual"): 1 / 6,
        ("top_down_0", "prior_gaussian"): 0.1,
    }
    for (stack, layer), gain in gains.items():
        kernel = params[stack][layer]["Dense_0"]["kernel"]
        _, fan_in, _ = kernel.shape
        np.testing.assert_allclose(np.std(kernel), gain / math.sqrt(fan_in), rtol=0.15)
    inside = params["top_down_0"]["out"]["Conv1x1_0"]["Dense_0"]["kernel"]
    np.testing.assert_allclose(np.std(inside), 1 / math.sqrt(4), rtol=0.15)


def test_a_step_in_bfloat16_looped_and_computed_again_moves_every_parameter(accelerator_task):
    task, carry = accelerator_task
    config, before = task.config, carry.state.nets[NET].params
    train_step = make_train_step(task, config.train, make_mesh(config.train.batch_size))
    batch = {"image": pictures(config, config.train.batch_size)[None]}
    (state, _), loss = train_step(carry, batch)
    net = jax.device_get(state.nets[NET])
    assert np.isfinite(loss) and state.skipped() == 0
    moved = jax.tree.map(lambda old, new: bool(np.any(old != new)), before, net.params)
    assert all(jax.tree.leaves(moved)), moved
    assert {leaf.dtype.name for leaf in jax.tree.leaves(net.moments)} == {"float32"}
