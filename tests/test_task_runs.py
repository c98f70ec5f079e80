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
from states import assert_same, last_carry
from stops import stopping_at
from tiny import metrics
from toy import Adversaries, stages, toy_config
from toy_reference import means_of_a_run, played

from vaejax.data import open_dataset
from vaejax.errors import TRY_AGAIN, UserError
from vaejax.records.checkpoints import Checkpoints
from vaejax.stages.sequence import train_in_turn
from vaejax.training.loop import Outcome, train
from vaejax.training.saved_state import WINDOW, to_items

pytestmark = pytest.mark.slow

HERE = pathlib.Path(__file__).parent
ROLLED_BACK = "step 20: 4 or more updates in a row were not finite; back to step 12"


def kernels(workdir, part="params"):
    """Returns the kernel of each network in a run's last checkpoint.

    Args:
      workdir: the work directory.
      part: "params", or "average" for the averaged parameters.
    """
    state, _ = last_carry(workdir, Adversaries())
    return {name: getattr(net, part)["kernel"] for name, net in state.nets.items()}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Returns the work directory of an uninterrupted run on one device; it rolls back once."""
    workdir = tmp_path_factory.mktemp("toy") / "run"
    (stderr,), statuses = results([play(workdir)])
    assert statuses == [0], stderr
    assert ROLLED_BACK in stderr
    return workdir


@pytest.fixture(scope="module")
def in_process(tmp_path_factory):
    """Returns the work directory of an uninterrupted run of the first stage in this process."""
    workdir = tmp_path_factory.mktemp("in_process")
    assert train(toy_config(), workdir, task=Adversaries()) is Outcome.FINISHED
    return workdir


def test_the_loop_trains_any_task(in_process):
    """Compares the final parameters with a reference in NumPy.

    The reference sees the task's labels in the order of the data, and mirrors them by the same
    random draws.
    """
    config = toy_config()
    expected = played(means_of_a_run(config))
    for name, kernel in kernels(in_process).items():
        np.testing.assert_allclose(kernel, expected[name], rtol=1e-4, err_msg=name)
    lines = metrics(in_process)
    assert [line["step"] for line in lines if line["split"] == "train"] == [4, 8, 12, 16, 20, 24]
    valid = {line["step"]: line["distance"] for line in lines if line["split"] == "valid"}
    assert list(valid) == [8, 16, 24] and lines[-1]["pictures"] == 24
    assert len(list((in_process / "pictures").glob("board_*.png"))) == 3
    with closing(
        Checkpoints(in_process / "checkpoints", best_by=Adversaries.best_by)
    ) as checkpoints:
        assert checkpoints.best_step() == min(valid, key=valid.get)
    np.testing.assert_allclose(valid[24], distance_of_average(in_process, config), rtol=1e-5)


def distance_of_average(workdir, config):
    """Computes the validation distance of the averaged player with NumPy."""
    labels = open_dataset(config.data).splits["valid"].labels
    at = np.stack([labels["yaw"] / 30.0, labels["smile"]], axis=1)
    return np.mean(np.sum((at - kernels(workdir, part="average")["player"]) ** 2, axis=1))


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """Returns the work directory of a run that was stopped after six updates."""
    workdir = tmp_path_factory.mktemp("stopped")
    with stopping_at(6):
        assert train(toy_config(), workdir, task=Adversaries()) is Outcome.INTERRUPTED
    return workdir


@pytest.mark.parametrize("window", ["missing", "of other metrics"])
def test_a_run_resumes_without_its_metrics_window(in_process, stopped, tmp_path, window):
    """Only the metrics of the two updates between the last log and the stop are lost."""
    workdir = shutil.copytree(stopped, tmp_path / "run")
    items = to_items(last_carry(workdir, Adversaries()))
    if window == "missing":
        del items[WINDOW]
    else:
        items[WINDOW] = {"another": jnp.zeros(3)}
    with closing(Checkpoints(workdir / "checkpoints")) as checkpoints:
        checkpoints.save(6, jax.tree.map(jnp.asarray, items), checkpoints.meta(6), None)
    assert train(toy_config(), workdir, task=Adversaries()) is Outcome.FINISHED
    assert_same(last_carry(in_process, Adversaries()), last_carry(workdir, Adversaries()))
    changed = [
        ours["step"]
        for ours, theirs in zip(metrics(workdir), metrics(in_process), strict=True)
        if ours != theirs
    ]
    assert changed == [8]


def play(workdir, *group, devices=1):
    """Starts a process that trains the toy task of `toy.py`.

    Args:
      workdir: the work directory.
      *group: for several processes: the coordinator's address, their number, and this one's
        index.
      devices: number of CPU devices of the process.
    """
    return start("toy", str(workdir), *group, devices=devices, cwd=HERE)


def play_in_two_processes(workdir):
    """Starts two processes that train the toy task together."""
    coordinator = f"localhost:{free_port()}"
    return [play(workdir, coordinator, "2", str(index)) for index in range(2)]


def results(processes):
    """Waits for processes to end; returns the rest of each one's stderr, and the exit statuses."""
    errors = [process.communicate(timeout=COMMAND_TIMEOUT)[1] for process in processes]
    return errors, [process.returncode for process in processes]


def wait_for_line(process, words):
    """Reads a process's stderr up to the first line that contains `words`."""
    assert any(words in line for line in process.stderr), f"stderr ended without {words!r}"


def third_stage(workdir):
    """Returns the end of the line with which the third stage begins."""
    return f"in {workdir / 'stages' / 'third'}"


def play_stopped_at(workdir, words, devices):
    """Plays up to a line that contains `words`, and stops the process with SIGTERM."""
    process = play(workdir, devices=devices)
    wait_for_line(process, words)
    process.send_signal(signal.SIGTERM)
    stderr, statuses = results([process])
    assert statuses == [TRY_AGAIN], stderr


def play_killed_at(workdir, words, devices):
    """Plays up to a line that contains `words`, and kills the process."""
    process = play(workdir, devices=devices)
    wait_for_line(process, words)
    process.kill()
    results([process])


def play_to_the_end(workdir, devices):
    """Plays all stages in one process."""
    stderr, statuses = results([play(workdir, devices=devices)])
    assert statuses == [0], stderr


def test_on_one_device_a_kill_and_stops_change_no_bit(uninterrupted, tmp_path):
    play_killed_at(tmp_path, "step 8/24", devices=1)
    play_stopped_at(tmp_path, ROLLED_BACK, devices=1)
    play_stopped_at(tmp_path, third_stage(tmp_path), devices=1)
    play_to_the_end(tmp_path, devices=1)
    assert_same_run(tmp_path, uninterrupted, exactly=True)


def test_on_two_devices_a_kill_and_a_stop_change_nothing(uninterrupted, tmp_path, capsys):
    """Kills another process. This one, which has two devices, is stopped after the rollback."""
    play_killed_at(tmp_path, "step 8/24", devices=2)
    with stopping_at(21):
        assert train_in_turn(stages(tmp_path))[0] is Outcome.INTERRUPTED
    assert ROLLED_BACK in capsys.readouterr().err
    state, _ = last_carry(tmp_path, Adversaries())
    assert (state.step, state.rollbacks) == (21, 1)
    assert train_in_turn(stages(tmp_path))[0] is Outcome.FINISHED
    assert "training from step 21 to 24" in capsys.readouterr().err
    assert_same_run(tmp_path, uninterrupted, exactly=False)


def test_on_four_devices_a_kill_and_a_stop_change_nothing(uninterrupted, tmp_path):
    play_killed_at(tmp_path, ROLLED_BACK, devices=4)
    play_stopped_at(tmp_path, third_stage(tmp_path), devices=4)
    play_to_the_end(tmp_path, devices=4)
    assert_same_run(tmp_path, uninterrupted, exactly=False)


def test_in_two_processes_a_kill_and_a_stop_change_nothing(uninterrupted, tmp_path):
    processes = play_in_two_processes(tmp_path)
    wait_for_line(processes[0], ROLLED_BACK)
    processes[1].kill()
    _, statuses = results(processes)
    assert statuses == [TRY_AGAIN, -signal.SIGKILL]
    processes = play_in_two_processes(tmp_path)
    wait_for_line(processes[0], third_stage(tmp_path))
    processes[1].send_signal(signal.SIGTERM)
    stderr, statuses = results(processes)
    assert statuses == [TRY_AGAIN] * 2, stderr
    stderr, statuses = results(play_in_two_processes(tmp_path))
    assert statuses == [0, 0], stderr
    assert_same_run(tmp_path, uninterrupted, exactly=False)


def assert_same_run(one, other, exactly):
    """Asserts that all three stages of two runs have equal distances, parameters and averages.

    Args:
      one: a work directory.
      other: a work directory.
      exactly: whether they must be bit-identical. Other devices add in another order.
    """
    near = {"rtol": 0.0 if exactly else 1e-5}
    for stage in ("", "stages/second", "stages/third"):
        for ours, theirs in zip(metrics(one / stage), metrics(other / stage), strict=True):
            assert ours.keys() == theirs.keys() and ours["step"] == theirs["step"]
            np.testing.assert_allclose(ours["distance"], theirs["distance"], **near)
        for part in ("params", "average"):
            ours, theirs = (kernels(workdir / stage, part=part) for workdir in (one, other))
            for name in ours:
                np.testing.assert_allclose(ours[name], theirs[name], **near)


def test_a_stage_begins_where_the_one_before_ended(uninterrupted):
    for before, stage in (("", "stages/second"), ("stages/second", "stages/third")):
        np.testing.assert_array_equal(
            kernels(uninterrupted / stage)["fixed"],
            kernels(uninterrupted / before, part="average")["player"],
        )


def test_a_stage_does_not_resume_on_the_output_of_another_stage(uninterrupted, tmp_path):
    shutil.copytree(uninterrupted / "stages" / "second", tmp_path / "second")
    other = Adversaries(fixed=np.float32([0.1, 0.2]))
    with pytest.raises(
        UserError, match=r"trained on the output of \{'digest': \d+\}, and there is .* remove it"
    ):
        train(toy_config(), tmp_path / "second", task=other)
