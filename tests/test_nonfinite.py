"""Tests that `explain_not_finite` names the first tensor of an update that is not finite."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flows import no_picture
from ladders import pictures
from parameters import away_from_start
from tiny import least, tiny, tiny_ladder
from toy import Adversaries, steeper, toy_config

from vaejax.data import Dataset, open_dataset
from vaejax.tasks.flow_prior import FlowPriorTask
from vaejax.tasks.vae import NET, vae_task
from vaejax.training.replay import explain_not_finite


@pytest.fixture(scope="module")
def ladder():
    """Returns the task of a ladder and its parameters."""
    config = tiny_ladder()
    task = vae_task(config)
    return task, away_from_start(task.model, config)


@pytest.mark.parametrize(
    ("stack", "branch", "block", "name"),
    [
        ("bottom_up_0", "Bottleneck_0", 1, "encoder['bottom_up_0']"),
        ("top_down_0", "out", 0, "decoder and prior['top_down_0']"),
        ("top_down_2", "posterior", 1, "decoder and prior['top_down_2']"),
    ],
)
def test_the_block_where_numbers_overflow_is_named(ladder, stack, branch, block, name):
    task, params = ladder
    # A bottleneck has three layers in a row: 1e15 in each of them overflows float32.
    enlarged = jax.tree.map(lambda leaf: leaf.at[block].multiply(1e15), params[stack][branch])
    params = {**params, stack: {**params[stack], branch: enlarged}}
    message = explanation_for_vae(task, params)
    assert f"tensor that is not finite: {name}['block {block}']" in message


def explanation_for_vae(task, params) -> str:
    """Returns the explanation of the first update on random pictures."""
    images = np.asarray(pictures(task.config, 30))
    return explain_not_finite(task, task.config.train, {NET: params}, {"image": images}, at=0)


def test_a_parameter_is_named_without_examples():
    task = vae_task(least())
    params = jax.tree.map(np.array, away_from_start(task.model, task.config))
    params["decoder"]["Dense_0"]["kernel"][0, 0] = np.inf
    message = explanation_for_vae(task, params)
    assert "parameters['vae']['decoder']['Dense_0']['kernel']; lower" in message
    assert "examples" not in message


def test_a_loss_that_overflows_because_of_the_weight_of_the_kl_is_named():
    task = vae_task(least(objective={"beta": 1e38, "warmup_steps": 0}))
    message = explanation_for_vae(task, away_from_start(task.model, task.config))
    assert "first tensor that is not finite: loss of vae; examples of that batch: [" in message


class Steep(Adversaries):
    """Has a network whose gradient is 1e38 times as large as it should be, if one is named."""

    def __init__(self, net=""):
        super().__init__()
        self._net = net

    def init(self, key):
        return {name: {"idle": jnp.zeros(3), **net} for name, net in super().init(key).items()}

    def loss(self, net, params, batch, keys, step):
        loss, sums = super().loss(net, params, batch, keys, step)
        return (steeper(loss, 1e38) if net == self._net else loss), sums


@pytest.mark.parametrize(
    ("net", "size_of_labels", "message"),
    [
        ("", 1.0, "the update is finite when it is repeated"),
        ("player", 1.0, "not finite: norm of the gradient of player; examples"),
        ("adversary", 1e4, "not finite: gradient of adversary['kernel']; examples"),
    ],
)
def test_the_network_and_parameter_whose_gradient_overflows_are_named(net, size_of_labels, message):
    """All losses are finite. In the second case the gradient is, too, but not its norm."""
    config, task = toy_config(), Steep(net)
    labels = task.examples(open_dataset(config.data))["train"]
    labels = {name: np.float32(size_of_labels) * label for name, label in labels.items()}
    params = task.init(jax.random.key(0))
    assert message in explain_not_finite(task, config.train, params, labels, at=0)


def test_a_code_that_is_not_finite_is_named():
    codes = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    config = tiny(train={"batch_size": 30})
    task = FlowPriorTask(config, {"train": codes}, no_picture, {}, latent_shape=(4,))
    params = jax.jit(task.init)(jax.random.key(0))
    white = task.examples(Dataset({}, {}, {}))["train"]["code"].copy()
    white[7] = np.nan
    message = explain_not_finite(task, config.train, params, {"code": white}, at=0)
    assert "first tensor that is not finite: code; examples of that batch: [" in message
    rows = json.loads("[" + message.split("batch: [")[1].split("]")[0] + "]")
    assert 7 in rows and len(rows) == 30 // jax.device_count()
