"""Any task trains: two networks against each other, one that is frozen, metrics that change."""

import dataclasses
import pathlib
import re
import shutil
import signal
from contextlib import closing

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from commands import COMMAND_TIMEOUT, free_port, start
from states import final_state
from stops import stopping_at
from tiny import metrics, tiny
from toy import Adversaries, toy_config

from vaejax.config import TrainConfig
from vaejax.data import open_dataset
from vaejax.data.feed.order import batch_indices
from vaejax.errors import TRY_AGAIN, UserError
from vaejax.records.checkpoints import Checkpoints
from vaejax.records.goodput import Clock
from vaejax.runtime.mesh import make_mesh, state_shardings
from vaejax.tasks.vae import VAETask
from vaejax.training.loop import Outcome, train
from vaejax.training.reports import Reports
from vaejax.training.saved_state import WINDOW, from_items, items_like, to_items
from vaejax.training.state import Carry, Net, initial_carry, shapes
from vaejax.training.step import make_train_step, step_keys
from vaejax.training.task import Task

HERE = pathlib.Path(__file__).parent
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
    """So many updates without the loop."""
    mesh = make_mesh(8, loop.fsdp or 1, devices=jax.devices()[:devices], accumulate=loop.accumulate)
    carry = jax.device_put(
        initial_carry(task, jax.random.key(0)), state_shardings(mesh, shapes(task))
    )
    step = make_train_step(task, loop, mesh)
    for batch in batches(count, nan_at):
        carry, loss = step(carry, batch)
    return jax.device_get(carry), float(loss)


def played(means):
    """The players' positions by hand, from the means of the points that each update saw."""
    params = {name: np.full(2, toy.START) for name in ("player", "adversary", "fixed")}
    moments = {name: (np.zeros(2), np.zeros(2)) for name in ("player", "adversary")}
    for step, mean in enumerate(means):
        gap = mean + params["adversary"] + params["fixed"] - params["player"]
        gradients = {"player": -gap, "adversary": 0.2 * params["adversary"] - gap}
        for name, gradient in gradients.items():
            first, second = moments[name]
            first = toy.SETTINGS.b1 * first + (1 - toy.SETTINGS.b1) * gradient
            second = toy.SETTINGS.b2 * second + (1 - toy.SETTINGS.b2) * gradient**2
            moments[name] = first, second
            ages = 1 - toy.SETTINGS.b1 ** (step + 1), 1 - toy.SETTINGS.b2 ** (step + 1)
            direction = first / ages[0] / (np.sqrt(second / ages[1]) + 1e-8)
            params[name] = params[name] - toy.SETTINGS.learning_rate * direction
    return params


def means_of_a_run(config):
    """What each update of a run sees: labels in the order of the data, mirrored by the step's key.

    Of the points, in the picture's left and right, the mean.
    """
    labels = open_dataset(config.data).splits["train"].labels
    size, means = config.train.batch_size, []
    for step in range(config.train.steps):
        places = np.arange(step * size, (step + 1) * size)
        rows = batch_indices(config.train.seed, places, len(labels["yaw"]))
        augment_key, _ = step_keys(jax.random.key(config.train.seed), jnp.int32(step))
        mirrored = np.asarray(jax.random.bernoulli(augment_key, 0.5, (size,)))
        yaw = np.where(mirrored, -labels["yaw"][rows], labels["yaw"][rows]) / 30.0
        means.append([np.mean(yaw, dtype=np.float64), np.mean(labels["smile"][rows])])
    return np.array(means, np.float64)


def kernels(workdir, part="params"):
    """The parameters in a run's last checkpoint, or their average."""
    with closing(Checkpoints(workdir / "checkpoints", read_only=True)) as checkpoints:
        at, like = checkpoints.steps()[-1], shapes(Adversaries())
        places = state_shardings(make_mesh(8, devices=jax.devices()[:1]), like)
        items = items_like(checkpoints, at, like, places)
        state, _ = from_items(jax.device_get(checkpoints.restore(at, *items)))
    return {name: getattr(net, part)["kernel"] for name, net in state.nets.items()}


class Unmirrored(Adversaries):
    def augment(self, batch, key):
        return batch


def test_two_networks_learn_against_each_other_and_the_frozen_one_stays():
    (state, window), _ = steps(Unmirrored())
    points = [np.asarray(toy.points(batch), np.float64) for batch in batches(6)]
    expected = played([np.mean(some, axis=(0, 2)) for some in points])
    for name, net in state.nets.items():
        np.testing.assert_allclose(net.params["kernel"], expected[name], rtol=1e-4, err_msg=name)
    assert state.nets["fixed"].moments is None
    assert isinstance(Adversaries(), Task) and isinstance(VAETask(tiny()), Task)
    # Of the window since the log after four updates.
    assert window.updates == 2 and window.sums["adversary"]["count"] == 16
    assert state.parameters() == 4


@pytest.mark.parametrize(("devices", "fsdp"), [(1, 1), (2, 1), (2, 2)])
def test_it_is_the_same_in_parts_on_several_devices_and_in_shards(devices, fsdp):
    parts = dataclasses.replace(LOOP, accumulate=2, fsdp=fsdp)
    (whole, _), _ = steps(Adversaries())
    (split, _), _ = steps(Adversaries(), parts, devices=devices)
    for name in whole.nets:
        np.testing.assert_allclose(
            split.nets[name].params["kernel"], whole.nets[name].params["kernel"], rtol=1e-5
        )


def test_what_is_not_finite_is_skipped_by_each_network_and_counts_in_no_window():
    (state, window), _ = steps(Adversaries(), count=3, nan_at=2)
    (before, _), _ = steps(Adversaries(), count=2)
    for name in ("player", "adversary"):
        jax.tree.map(
            np.testing.assert_array_equal, state.nets[name].params, before.nets[name].params
        )
        assert state.nets[name].skipped == state.nets[name].skipped_in_row == 1
    assert state.skipped_in_row() == 1 and window.updates == 2 and state.step == 3


def test_reports_name_the_networks(tmp_path):
    carry, _ = steps(Adversaries())
    reports = Reports(Adversaries(), LOOP, tmp_path, Clock(), speaks=True)
    reports.open(0, False)
    assert reports.training(6, carry) == ""
    reports.close()
    (line,) = metrics(tmp_path)
    assert line["learning_rate_player"] == line["learning_rate_adversary"] == pytest.approx(0.1)
    assert line["gradient_norm_player"] > 0 and line["skipped"] == 0 and "fixed" not in str(line)
    assert reports.lowest_loss == line["distance"]


def test_a_network_is_frozen_by_one_line():
    (state, window), _ = steps(Adversaries(adversary=None))
    np.testing.assert_array_equal(state.nets["adversary"].params["kernel"], [0.5, 0.5])
    assert list(window.sums) == ["player"]


def test_its_checkpoint_has_each_part_by_name(tmp_path):
    carry, _ = steps(Adversaries())
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


def play(workdir, *meeting, devices=1):
    """A process of a run over a task that is no VAE."""
    return start("toy", str(workdir), *meeting, devices=devices, cwd=HERE)


def pod(workdir):
    """Two processes of such a run."""
    coordinator = f"localhost:{free_port()}"
    return [play(workdir, coordinator, "2", str(index)) for index in range(2)]


def ends(members):
    """What they say from here on, and their statuses."""
    said = [member.communicate(timeout=COMMAND_TIMEOUT)[1] for member in members]
    return said, [member.returncode for member in members]


def hear(member, words):
    """Reads what it says until `words` come."""
    assert any(words in line for line in member.stderr), f"it has ended without {words!r}"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of one device that nothing interrupts; once it goes back."""
    workdir = tmp_path_factory.mktemp("toy") / "run"
    (said,), statuses = ends([play(workdir)])
    assert statuses == [0], said
    assert "step 20: 4 or more updates in a row were not finite; back to step 12" in said
    return workdir


def test_the_loop_trains_any_task(tmp_path):
    """With the labels that it asks for, mirrored with their pictures, in the order of the data."""
    config = toy_config()
    assert train(config, tmp_path, task=Adversaries()) is Outcome.FINISHED
    expected = played(means_of_a_run(config))
    for name, kernel in kernels(tmp_path).items():
        np.testing.assert_allclose(kernel, expected[name], rtol=1e-4, err_msg=name)
    lines = metrics(tmp_path)
    assert [line["step"] for line in lines if line["split"] == "train"] == [4, 8, 12, 16, 20, 24]
    valid = {line["step"]: line["distance"] for line in lines if line["split"] == "valid"}
    assert list(valid) == [8, 16, 24] and lines[-1]["pictures"] == 24
    assert len(list((tmp_path / "pictures").glob("board_*.png"))) == 3
    with closing(Checkpoints(tmp_path / "checkpoints", best_by="distance")) as checkpoints:
        assert checkpoints.best_step() == min(valid, key=valid.get)
    average = metrics_of_average(tmp_path, config)
    np.testing.assert_allclose(valid[24], average, rtol=1e-5)


def metrics_of_average(workdir, config):
    """The validation's distance of the averaged player, by hand."""
    labels = open_dataset(config.data).splits["valid"].labels
    at = np.stack([labels["yaw"] / 30.0, labels["smile"]], axis=1)
    return np.mean(np.sum((at - kernels(workdir, part="average")["player"]) ** 2, axis=1))


@pytest.mark.parametrize("devices", [1, 2, 4])
def test_killed_and_stopped_it_ends_the_same(whole, tmp_path, devices):
    """On other devices but for the order of sums."""
    process = play(tmp_path, devices=devices)
    hear(process, "step 8/24")
    process.kill()
    ends([process])
    for words in ("back to step 12", f"in {tmp_path / 'stages' / 'third'}"):
        process = play(tmp_path, devices=devices)
        hear(process, words)
        process.send_signal(signal.SIGTERM)
        said, statuses = ends([process])
        assert statuses == [TRY_AGAIN], said
    said, statuses = ends([play(tmp_path, devices=devices)])
    assert statuses == [0], said
    assert_same_play(tmp_path, whole, exactly=devices == 1)


def test_two_processes_play_as_one(whole, tmp_path):
    members = pod(tmp_path)
    hear(members[0], "step 8/24")
    members[1].kill()
    _, statuses = ends(members)
    assert statuses[0] == TRY_AGAIN
    for words in ("back to step 12", f"in {tmp_path / 'stages' / 'third'}"):
        members = pod(tmp_path)
        hear(members[0], words)
        members[1].send_signal(signal.SIGTERM)
        said, statuses = ends(members)
        assert statuses == [TRY_AGAIN] * 2, said
    said, statuses = ends(pod(tmp_path))
    assert statuses == [0, 0], said
    assert_same_play(tmp_path, whole, exactly=False)


def assert_same_play(one, other, exactly):
    """In each of three stages."""
    near = {"rtol": 0.0 if exactly else 1e-5}
    for stage in ("", "stages/second", "stages/third"):
        for mine, its in zip(metrics(one / stage), metrics(other / stage), strict=True):
            assert mine.keys() == its.keys() and mine["step"] == its["step"]
            np.testing.assert_allclose(mine["distance"], its["distance"], **near)
        for part in ("params", "average"):
            mine, its = (kernels(workdir / stage, part=part) for workdir in (one, other))
            for name in mine:
                np.testing.assert_allclose(mine[name], its[name], **near)


def test_a_stage_begins_where_the_one_before_ended(whole):
    for before, stage in (("", "stages/second"), ("stages/second", "stages/third")):
        np.testing.assert_array_equal(
            kernels(whole / stage)["fixed"], kernels(whole / before, part="average")["player"]
        )


def test_a_stage_does_not_go_on_from_another_foundation(whole, tmp_path):
    shutil.copytree(whole / "stages" / "second", tmp_path / "second")
    other = Adversaries(fixed=np.float32([0.1, 0.2]))
    with pytest.raises(UserError, match=r"builds on \{'digest': \d+\}, and there is .* remove it"):
        train(toy_config(), tmp_path / "second", task=other)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (("beauty",), "the data has no label 'beauty'; it has: age_lines"),
        (("index",), "a label cannot be called 'index'"),
        (("name",), "the label 'name' is of <U3; only numbers can be trained on"),
    ],
)
def test_labels_that_cannot_be_trained_on(labels, said):
    split = open_dataset(toy_config().data).splits["train"]
    more = {"index": np.arange(len(split.images)), "name": np.full(len(split.images), "Eve")}
    if labels != ("beauty",):
        split = dataclasses.replace(split, labels={**split.labels, **more})
    with pytest.raises(UserError, match=re.escape(said)):
        split.arrays(labels)
