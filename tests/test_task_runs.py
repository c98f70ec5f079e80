"""Runs of a task other than a VAE: kills, stops, rollbacks, stages, several devices, processes."""

import pathlib
import shutil
import signal
from contextlib import closing

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from commands import COMMAND_TIMEOUT, free_port, start
from states import final_state
from stops import stopping_at
from tiny import metrics, tiny
from toy import Adversaries, toy_config
from toy_reference import means_of_a_run, played

from vaejax.data import open_dataset
from vaejax.errors import TRY_AGAIN, UserError
from vaejax.records.checkpoints import Checkpoints
from vaejax.runtime.mesh import make_mesh
from vaejax.runtime.shards import state_shardings
from vaejax.training.loop import Outcome, train
from vaejax.training.saved_state import WINDOW, from_items, items_like, to_items
from vaejax.training.state import Carry, shapes

pytestmark = pytest.mark.slow

HERE = pathlib.Path(__file__).parent


def kernels(workdir, part="params"):
    """Returns the kernel of each network in a run's last checkpoint.

    Args:
      workdir: the work directory.
      part: "params", or "average" for the averaged parameters.
    """
    with closing(Checkpoints(workdir / "checkpoints", read_only=True)) as checkpoints:
        at, like = checkpoints.steps()[-1], shapes(Adversaries())
        places = state_shardings(make_mesh(8, devices=jax.devices()[:1]), like)
        items = items_like(checkpoints, at, like, places)
        state, _ = from_items(jax.device_get(checkpoints.restore(at, *items)))
    return {name: getattr(net, part)["kernel"] for name, net in state.nets.items()}


@pytest.mark.parametrize("other", ["missing", "of other metrics"])
def test_a_run_goes_on_without_its_window(tmp_path, other):
    """Resumes from a checkpoint whose metrics window is missing, or is of other metrics.

    The final state must be that of an uninterrupted run.
    """
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
    """Starts a process that trains the toy task of `toy.py`.

    Args:
      workdir: the work directory.
      *meeting: for several processes: the coordinator's address, their number, and this one's
        index.
      devices: number of CPU devices of the process.
    """
    return start("toy", str(workdir), *meeting, devices=devices, cwd=HERE)


def pod(workdir):
    """Starts two processes that train the toy task together."""
    coordinator = f"localhost:{free_port()}"
    return [play(workdir, coordinator, "2", str(index)) for index in range(2)]


def ends(members):
    """Waits for processes to end; returns the rest of each one's stderr, and the exit statuses."""
    said = [member.communicate(timeout=COMMAND_TIMEOUT)[1] for member in members]
    return said, [member.returncode for member in members]


def hear(member, words):
    """Reads a process's stderr up to the first line that contains `words`."""
    assert any(words in line for line in member.stderr), f"stderr ended without {words!r}"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Returns the work directory of an uninterrupted run on one device; it rolls back once."""
    workdir = tmp_path_factory.mktemp("toy") / "run"
    (said,), statuses = ends([play(workdir)])
    assert statuses == [0], said
    assert "step 20: 4 or more updates in a row were not finite; back to step 12" in said
    return workdir


def test_the_loop_trains_any_task(tmp_path):
    """Compares the final parameters with a reference in NumPy.

    The reference sees the task's labels in the order of the data, and mirrors them by the same
    random draws.
    """
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
    """Computes the validation distance of the averaged player with NumPy."""
    labels = open_dataset(config.data).splits["valid"].labels
    at = np.stack([labels["yaw"] / 30.0, labels["smile"]], axis=1)
    return np.mean(np.sum((at - kernels(workdir, part="average")["player"]) ** 2, axis=1))


@pytest.mark.parametrize("devices", [1, 2, 4])
def test_killed_and_stopped_it_ends_the_same(whole, tmp_path, devices):
    """On one device results are bit-identical; with more devices sums have another order."""
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
    """Asserts that all three stages of two runs have equal distances, parameters and averages.

    Args:
      one: a work directory.
      other: a work directory.
      exactly: whether they must be bit-identical.
    """
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
    with pytest.raises(
        UserError, match=r"trained on the output of \{'digest': \d+\}, and there is .* remove it"
    ):
        train(toy_config(), tmp_path / "second", task=other)
