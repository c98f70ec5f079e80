"""Tests of updates and checkpoints of a task with two adversarial networks and a frozen one."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from states import assert_same
from tiny import metrics, tiny
from toy import Adversaries, toy_config
from toy_reference import played

from vaejax.config import TrainConfig
from vaejax.data import open_dataset
from vaejax.errors import UserError
from vaejax.records.checkpoints import Checkpoints
from vaejax.records.goodput import Clock
from vaejax.runtime.mesh import make_mesh
from vaejax.runtime.shards import state_shardings
from vaejax.tasks.vae import VAETask
from vaejax.training.reports import Reports
from vaejax.training.saved_state import from_items, to_items
from vaejax.training.state import Net, shapes, starting
from vaejax.training.step import make_train_step
from vaejax.training.task import Task

LOOP = TrainConfig(batch_size=8, steps=40, log_every=4)


def batches(count: int, nan_at: int = -1):
    rng = np.random.default_rng(0)
    labels = rng.normal(size=(count, 2, 1, 8)).astype(np.float32)
    if nan_at >= 0:
        labels[nan_at] = np.nan
    images = jnp.zeros((1, 8, 2, 2, 1), jnp.uint8)
    return [
        {"image": images, "yaw": jnp.asarray(30.0 * yaw), "smile": jnp.asarray(smile)}
        for yaw, smile in labels
    ]


def steps(task: Task, loop: TrainConfig = LOOP, count: int = 6, nan_at: int = -1, devices: int = 1):
    """Returns the carry after `count` updates that are made without the training loop."""
    mesh = make_mesh(8, loop.fsdp or 1, devices=jax.devices()[:devices], accumulate=loop.accumulate)
    carry = jax.device_put(
        jax.jit(starting(task))(jax.random.key(0)), state_shardings(mesh, shapes(task))
    )
    step = make_train_step(task, loop, mesh)
    for batch in batches(count, nan_at):
        carry, _ = step(carry, batch)
    return jax.device_get(carry)


class Unmirrored(Adversaries):
    def augment(self, batch, key):
        return batch


@pytest.fixture(scope="module")
def six_updates():
    """Returns the carry after six updates on one device."""
    return steps(Adversaries())


def test_two_networks_learn_against_each_other_and_the_frozen_one_stays():
    state, window = steps(Unmirrored())
    points = [np.asarray(toy.points(batch), np.float64) for batch in batches(6)]
    expected = played([np.mean(some, axis=(0, 2)) for some in points])
    for name, net in state.nets.items():
        np.testing.assert_allclose(net.params["kernel"], expected[name], rtol=1e-4, err_msg=name)
    assert state.nets["fixed"].moments is None
    assert isinstance(Adversaries(), Task) and isinstance(VAETask(tiny()), Task)
    # The window restarts after the log at step 4, so it sums the last two of six updates.
    assert window.updates == 2 and window.sums["adversary"]["count"] == 16
    assert state.parameters() == 4


@pytest.mark.parametrize(("devices", "fsdp"), [(1, 1), (2, 1), (2, 2)])
def test_accumulation_devices_and_shards_change_no_update(six_updates, devices, fsdp):
    loop = dataclasses.replace(LOOP, accumulate=2, fsdp=fsdp)
    split, split_window = steps(Adversaries(), loop, devices=devices)
    for name, net in six_updates.state.nets.items():
        np.testing.assert_allclose(
            split.nets[name].params["kernel"], net.params["kernel"], rtol=1e-5
        )
        if net.moments is not None:
            norms = split_window.gradient_norm[name], six_updates.window.gradient_norm[name]
            np.testing.assert_allclose(*norms, rtol=1e-5)
    # The sums of the parts of a batch are added: two updates of eight examples.
    assert split_window.sums["adversary"]["count"] == 16


def test_each_network_skips_an_update_that_is_not_finite_and_the_window_leaves_it_out():
    state, window = steps(Adversaries(), count=3, nan_at=2)
    before, _ = steps(Adversaries(), count=2)
    for name in ("player", "adversary"):
        assert_same(state.nets[name].params, before.nets[name].params)
        assert_same(state.nets[name].moments, before.nets[name].moments)
        assert state.nets[name].skipped == state.nets[name].skipped_in_row == 1
    assert state.skipped_in_row() == 1 and window.updates == 2 and state.step == 3


def test_reports_name_the_networks(six_updates, tmp_path):
    reports = Reports(Adversaries(), LOOP, tmp_path, Clock(), speaks=True)
    reports.open(0, False)
    assert reports.training(6, six_updates) == ""
    reports.close()
    (line,) = metrics(tmp_path)
    assert line["learning_rate_player"] == line["learning_rate_adversary"] == pytest.approx(0.1)
    assert line["gradient_norm_player"] > 0 and line["skipped"] == 0 and "fixed" not in str(line)
    assert reports.lowest_loss == line["distance"]


def test_a_network_without_an_optimizer_is_frozen():
    state, window = steps(Adversaries(adversary=None))
    np.testing.assert_array_equal(state.nets["adversary"].params["kernel"], [0.5, 0.5])
    assert list(window.sums) == ["player"]


def test_a_checkpoint_has_each_part_of_the_state_by_name(six_updates, tmp_path):
    items = to_items(six_updates)
    assert sorted(items) == ["model", "train", "window"]
    assert set(items["train"]["nets"]["fixed"]) == {
        "params", "gradient_norm_ema", "skipped", "skipped_in_row"
    }  # fmt: skip
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(6, jax.tree.map(jnp.asarray, items), {}, None)
    checkpoints.wait()
    places = state_shardings(make_mesh(8, devices=jax.devices()[:1]), items)
    state, window = from_items(checkpoints.restore(6, items, places))
    assert_same((state, window), tuple(six_updates))
    assert isinstance(state.nets["player"], Net)
    checkpoints.close()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (("beauty",), "the data has no label 'beauty'; it has: age_lines"),
        (("index",), "the label name 'index' is reserved"),
        (("name",), "the label 'name' is of <U3; only numbers can be trained on"),
    ],
)
def test_labels_that_cannot_be_trained_on_are_refused(labels, message):
    split = open_dataset(toy_config().data).splits["train"]
    more = {"index": np.arange(len(split.images)), "name": np.full(len(split.images), "Eve")}
    if labels != ("beauty",):
        split = dataclasses.replace(split, labels={**split.labels, **more})
    with pytest.raises(UserError, match=re.escape(message)):
        split.arrays(labels)
