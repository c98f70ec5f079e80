"""Tests that `explain_not_finite` names the first tensor of an update that is not finite."""

import jax
import numpy as np
import pytest
from flows import no_picture
from ladders import pictures
from parameters import away_from_start
from tiny import tiny, tiny_ladder

from vaejax.data import Dataset
from vaejax.tasks.flow_prior import FlowPriorTask
from vaejax.tasks.vae import NET, vae_task
from vaejax.training.replay import explain_not_finite


@pytest.mark.parametrize(
    ("stack", "branch", "block", "named"),
    [
        ("bottom_up_0", "Bottleneck_0", 1, "encoder['bottom_up_0']"),
        ("top_down_0", "out", 0, "decoder and prior['top_down_0']"),
        ("top_down_2", "posterior", 1, "decoder and prior['top_down_2']"),
    ],
)
def test_the_block_where_numbers_overflow_is_named(stack, branch, block, named):
    config = tiny_ladder()
    task = vae_task(config)
    params = away_from_start(task.model, config)
    # A bottleneck has three layers in a row: 1e15 in each of them overflows float32.
    enlarged = jax.tree.map(lambda leaf: leaf.at[block].multiply(1e15), params[stack][branch])
    params[stack][branch] = enlarged
    images = np.asarray(pictures(config, 30))
    why = explain_not_finite(task, config.train, {NET: params}, {"image": images}, at=0)
    assert f"tensor that is not finite: {named}['block {block}']" in why


def explained(task, config, params, images) -> str:
    return explain_not_finite(task, config.train, params, {"image": images}, at=0)


def test_a_parameter_is_named_without_examples():
    config = tiny()
    task = vae_task(config)
    params = jax.tree.map(np.array, away_from_start(task.model, config))
    params["decoder"]["Dense_0"]["kernel"][0, 0] = np.inf
    why = explained(task, config, {NET: params}, np.asarray(pictures(config, 30)))
    assert "parameters['vae']['decoder']['Dense_0']['kernel']; lower" in why
    assert "examples" not in why


def test_a_loss_that_overflows_is_named_with_the_weights_that_it_is_trained_with():
    config = tiny(objective={"beta": 1e38, "warmup_steps": 0})
    task = vae_task(config)
    params = away_from_start(task.model, config)
    images = np.asarray(pictures(config, 30))
    why = explained(task, config, {NET: params}, images)
    assert "first tensor that is not finite: loss of vae; examples of that batch: [" in why
    fine = tiny()
    why = explained(vae_task(fine), fine, {NET: params}, images)
    assert why.startswith("the update is finite when it is repeated")


def test_a_code_that_is_not_finite_is_named():
    codes = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    config = tiny(train={"batch_size": 30})
    task = FlowPriorTask(config, {"train": codes}, no_picture, {})
    params = jax.jit(task.init)(jax.random.key(0))
    white = task.examples(Dataset({}, {}, {}))["train"]["code"].copy()
    white[7] = np.nan
    why = explain_not_finite(task, config.train, params, {"code": white}, at=0)
    assert "first tensor that is not finite: code; examples of that batch: [" in why
