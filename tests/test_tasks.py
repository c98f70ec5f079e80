"""Any task trains: two networks against each other, one that is frozen, metrics that change."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from states import final_state
from stops import stopping_at
from tiny import metrics, tiny

from vaejax.config import OptimizerConfig, TrainConfig
from vaejax.records.checkpoints import Checkpoints
from vaejax.records.goodput import Clock
from vaejax.runtime.mesh import make_mesh, state_shardings
from vaejax.tasks.vae import VAETask
from vaejax.training.loop import Outcome, train
from vaejax.training.reports import Reports
from vaejax.training.saved_state import WINDOW, from_items, to_items
from vaejax.training.state import Carry, Net, initial_carry, shapes
from vaejax.training.step import make_train_step
from vaejax.training.task import Task

SETTINGS = OptimizerConfig(
    learning_rate=0.1, warmup_steps=0, final_fraction=1.0, clip_norm=0.0, guard=0.0,
    weight_decay=0.0, ema_decay=0.5,
)  # fmt: skip
LOOP = TrainConfig(batch_size=8, steps=40, log_every=4)


class Silent:
    """Health of which there is nothing to say."""

    def training(self, step, values):
        return []

    def validation(self, train, valid):
        return []


class Adversaries:
    """A player moves towards the examples' mean plus the adversary; the adversary away from it."""

    def __init__(self, adversary: OptimizerConfig | None = SETTINGS):
        self.optimizers = {"player": SETTINGS, "adversary": adversary, "fixed": None}

    def init(self, key):
        return {name: {"kernel": jnp.full((2,), 0.5)} for name in self.optimizers}

    def augment(self, batch, key):
        return batch

    def loss(self, net, params, batch, keys, step):
        point, against, fixed = (params[name]["kernel"] for name in self.optimizers)
        distance = jnp.mean((batch["x"] + (against + fixed - point)[None]) ** 2)
        if net == "adversary":
            return 0.1 * jnp.sum(against**2) - distance, {"count": jnp.float32(len(batch["x"]))}
        return distance, {"distance": distance}

    def no_metrics(self):
        zero = jnp.zeros(())
        trained = {"player": {"distance": zero}, "adversary": {"count": zero}}
        return {name: trained[name] for name in trained if self.optimizers[name]}

    def summarize(self, sums, step):
        return {"distance": float(sums["player"]["distance"])}

    def describe(self, values):
        return f"distance {values['distance']:.3f}"

    def describe_validation(self, values):
        return self.describe(values)

    def health(self):
        return Silent()

    def divergence(self, step, values, lowest):
        return "it has diverged" if values["distance"] > 100 * lowest else ""

    def loss_of(self, values):
        return values["distance"]

    def evaluator(self, mesh):
        raise NotImplementedError

    def gallery(self, dataset, directory):
        raise NotImplementedError

    def first_not_finite(self, params, batch, keys, parts):
        return None


def batches(count: int, nan_at: int = -1):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(count, 1, 8, 2)).astype(np.float32)
    if nan_at >= 0:
        x[nan_at] = np.nan
    return [{"x": jnp.asarray(one)} for one in x]


def run(task: Task, loop: TrainConfig = LOOP, count: int = 6, nan_at: int = -1, devices: int = 1):
    mesh = make_mesh(8, devices=jax.devices()[:devices], accumulate=loop.accumulate)
    carry = jax.device_put(
        initial_carry(task, jax.random.key(0)), state_shardings(mesh, shapes(task))
    )
    step = make_train_step(task, loop, mesh)
    for batch in batches(count, nan_at):
        carry, loss = step(carry, batch)
    return jax.device_get(carry), float(loss)


def reference(count: int):
    """The same game by hand: Adam without its bias and averages would be another."""
    params = {name: np.full(2, 0.5) for name in ("player", "adversary", "fixed")}
    moments = {name: (np.zeros(2), np.zeros(2)) for name in ("player", "adversary")}
    for step, batch in enumerate(batches(count)):
        gap = np.mean(np.asarray(batch["x"][0], np.float64), axis=0)
        gap = gap + params["adversary"] + params["fixed"] - params["player"]
        gradients = {"player": -gap, "adversary": 0.2 * params["adversary"] - gap}
        for name, gradient in gradients.items():
            first, second = moments[name]
            first = SETTINGS.b1 * first + (1 - SETTINGS.b1) * gradient
            second = SETTINGS.b2 * second + (1 - SETTINGS.b2) * gradient**2
            moments[name] = first, second
            ages = 1 - SETTINGS.b1 ** (step + 1), 1 - SETTINGS.b2 ** (step + 1)
            direction = first / ages[0] / (np.sqrt(second / ages[1]) + 1e-8)
            params[name] = params[name] - SETTINGS.learning_rate * direction
    return params


def test_two_networks_learn_against_each_other_and_the_frozen_one_stays():
    (state, window), _ = run(Adversaries())
    expected = reference(6)
    for name, net in state.nets.items():
        np.testing.assert_allclose(net.params["kernel"], expected[name], rtol=1e-4, err_msg=name)
    assert state.nets["fixed"].moments is None
    assert isinstance(Adversaries(), Task) and isinstance(VAETask(tiny()), Task)
    # Of the window since the log after four updates.
    assert window.updates == 2 and window.sums["adversary"]["count"] == 16
    assert state.parameters() == 4


@pytest.mark.parametrize("devices", [1, 2])
def test_it_is_the_same_in_parts_and_on_several_devices(devices):
    parts = dataclasses.replace(LOOP, accumulate=2)
    (whole, _), (split, _) = run(Adversaries())[0], run(Adversaries(), parts, devices=devices)[0]
    for name in whole.nets:
        np.testing.assert_allclose(
            split.nets[name].params["kernel"], whole.nets[name].params["kernel"], rtol=1e-5
        )


def test_what_is_not_finite_is_skipped_by_each_network_and_counts_in_no_window():
    (state, window), _ = run(Adversaries(), count=3, nan_at=2)
    (before, _), _ = run(Adversaries(), count=2)
    for name in ("player", "adversary"):
        jax.tree.map(
            np.testing.assert_array_equal, state.nets[name].params, before.nets[name].params
        )
        assert state.nets[name].skipped == state.nets[name].skipped_in_row == 1
    assert state.skipped_in_row() == 1 and window.updates == 2 and state.step == 3


def test_reports_name_the_networks(tmp_path):
    carry, _ = run(Adversaries())
    reports = Reports(Adversaries(), LOOP, tmp_path, Clock(), speaks=True)
    reports.open(0, False)
    assert reports.training(6, carry) == ""
    reports.close()
    (line,) = metrics(tmp_path)
    assert line["learning_rate_player"] == line["learning_rate_adversary"] == pytest.approx(0.1)
    assert line["gradient_norm_player"] > 0 and line["skipped"] == 0 and "fixed" not in str(line)
    assert reports.lowest_loss == line["distance"]


def test_a_network_is_frozen_by_one_line():
    (state, window), _ = run(Adversaries(adversary=None))
    np.testing.assert_array_equal(state.nets["adversary"].params["kernel"], [0.5, 0.5])
    assert list(window.sums) == ["player"]


def test_its_checkpoint_has_each_part_by_name(tmp_path):
    carry, _ = run(Adversaries())
    items = to_items(carry)
    assert sorted(items) == ["model", "train", "window"]
    assert set(items["train"]["nets"]["fixed"]) == {
        "params", "gradient_norm_ema", "skipped", "skipped_in_row"
    }  # fmt: skip
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(6, jax.tree.map(jnp.asarray, items), {}, None)
    checkpoints.wait()
    places = state_shardings(make_mesh(8, devices=jax.devices()[:1]), items)
    state, window = from_items(checkpoints.restore(6, items, places))
    jax.tree.map(np.testing.assert_array_equal, (state, window), tuple(carry))
    assert isinstance(state.nets["player"], Net)
    checkpoints.close()


@pytest.mark.parametrize("other", ["missing", "of other metrics"])
def test_a_run_goes_on_without_its_window(tmp_path, other):
    """Its state is as it would have been; the metrics begin anew."""
    config = tiny(train={"log_every": 6})
    train(config, tmp_path / "whole")
    with stopping_at(4):
        assert train(config, tmp_path / "torn") is Outcome.INTERRUPTED
    state, _, window = final_state(tmp_path / "torn", config)
    checkpoints = Checkpoints(tmp_path / "torn" / "checkpoints")
    items = to_items(Carry(state, window))
    if other == "missing":
        del items[WINDOW]
    else:
        items[WINDOW] = {"another": jnp.zeros(3)}
    checkpoints.save(4, jax.tree.map(jnp.asarray, items), checkpoints.meta(4), None)
    checkpoints.close()
    assert train(config, tmp_path / "torn") is Outcome.FINISHED
    ends = [final_state(tmp_path / name, config) for name in ("whole", "torn")]
    jax.tree.map(np.testing.assert_array_equal, *(end.state for end in ends))
