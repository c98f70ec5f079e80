"""Runs the training loop in this process: it learns, and it resumes exactly."""

import json
import os
import shutil
import signal

import numpy as np
import pytest
from states import assert_same, final_state, last_carry
from stops import stopping_at
from tiny import least, metrics, without
from toy import Adversaries, MeanDistance, toy_config
from toy_reference import means_of_a_run, played

from vaejax.cost.steps import model_step
from vaejax.errors import UserError
from vaejax.runtime.mesh import make_mesh
from vaejax.training.loop import Outcome, train


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("uninterrupted")
    config = least()
    assert train(config, workdir) is Outcome.FINISHED
    return workdir


def test_pictures_on_the_device_change_nothing(uninterrupted, tmp_path, capsys):
    config = least(data={"on_device": "always"})
    train(config, tmp_path)
    assert "the training set lies on the device" in capsys.readouterr().err
    assert_same(final_state(tmp_path, config), final_state(uninterrupted, least()))
    assert metrics(tmp_path) == metrics(uninterrupted)


@pytest.mark.parametrize("on_device", ["never", "always"])
def test_several_updates_in_one_dispatch_are_the_same_updates(tmp_path, on_device):
    """The final parameters are those of a reference in NumPy, also for a seed other than 0."""
    config = without(toy_config(steps_per_dispatch=4, seed=1), "data", on_device=on_device)
    assert train(config, tmp_path, task=Adversaries()) is Outcome.FINISHED
    expected = played(means_of_a_run(config))
    for name, net in last_carry(tmp_path, Adversaries()).state.nets.items():
        np.testing.assert_allclose(net.params["kernel"], expected[name], rtol=1e-4, err_msg=name)
    lines = map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
    lines = [line for line in lines if line["split"] == "train"]
    assert [line["step"] for line in lines] == [4, 8, 12, 16, 20, 24]
    # The first window is one dispatch, which includes the compilation, so it has no rate.
    assert ["images_per_second" in line for line in lines] == [False] + [True] * 5


def test_runs_from_several_seeds_share_a_program():
    configs = [least(train={"seed": seed}) for seed in (0, 1)]
    programs = [model_step(config).trace(make_mesh(8)) for config in configs]
    assert programs[0].lower().as_text() == programs[1].lower().as_text()


def test_a_run_learns_and_writes_metrics_pictures_and_config(uninterrupted):
    lines = metrics(uninterrupted)
    training_lines = [line for line in lines if line["split"] == "train"]
    assert [line["step"] for line in training_lines] == [3, 6, 9, 12]
    first, last = training_lines[0], training_lines[-1]
    assert last["elbo_bits_per_dim"] < first["elbo_bits_per_dim"]
    assert last["skipped"] == 0
    assert len(last["information_per_dimension"]) == 6
    np.testing.assert_allclose(
        last["elbo_nats"], last["log_likelihood_nats"] - last["kl_nats"], rtol=1e-6
    )
    assert [line["step"] for line in lines if line["split"] == "valid"] == [6, 12]
    names = {path.name for path in (uninterrupted / "pictures").iterdir()}
    assert names == {
        f"{kind}_{at:08d}.png"
        for kind in ("samples", "reconstructions", "interpolations")
        for at in (6, 12)
    }
    assert list((uninterrupted / "tensorboard").iterdir())
    assert json.loads((uninterrupted / "config.json").read_text())["train"]["steps"] == 12


def test_a_stop_between_two_steps_changes_nothing(uninterrupted, tmp_path):
    """The run is stopped between two logs."""
    config = least()
    with stopping_at(7):
        assert train(config, tmp_path) is Outcome.INTERRUPTED
    assert final_state(tmp_path, config).state.step == 7
    assert train(config, tmp_path) is Outcome.FINISHED
    assert_same(final_state(uninterrupted, config), final_state(tmp_path, config))
    assert metrics(uninterrupted) == metrics(tmp_path)


class StoppedInValidation(Adversaries):
    """Sends SIGTERM to this process while it validates.

    Attributes:
      batches: number of batches so far, over all validations.
      stops: the batches, counted from 1, at which the signal is sent.
    """

    def __init__(self, stops):
        super().__init__()
        self.batches, self.stops = 0, stops

    def evaluator(self, mesh):
        task = self

        class Stopping(MeanDistance):
            def __call__(self, params, batches):
                return super().__call__(params, map(task.count, batches))

        return Stopping(mesh)

    def count(self, batch):
        self.batches += 1
        if self.batches in self.stops:
            os.kill(os.getpid(), signal.SIGTERM)
        return batch


def test_a_stop_during_validation_changes_nothing(tmp_path):
    """Requests the stop in the first of three batches, in each of the two validations."""
    config, task = toy_config(steps=16), StoppedInValidation(stops=(1, 5))
    uninterrupted, interrupted = tmp_path / "uninterrupted", tmp_path / "interrupted"
    assert train(config, uninterrupted, task=Adversaries()) is Outcome.FINISHED
    for stopped_at in (8, 16):
        assert train(config, interrupted, task=task) is Outcome.INTERRUPTED
        assert last_carry(interrupted, task).state.step == stopped_at
        assert metrics(interrupted)[-1]["split"] == "train", (
            "an interrupted validation is not logged"
        )
    assert train(config, interrupted, task=task) is Outcome.FINISHED
    assert task.batches == 1 + 3 + 1 + 3
    assert_same(last_carry(uninterrupted, task), last_carry(interrupted, task))
    assert metrics(uninterrupted) == metrics(interrupted)


def test_accumulation_changes_nothing(uninterrupted, tmp_path):
    config = least(train={"accumulate": 4})
    assert train(config, tmp_path) is Outcome.FINISHED
    for a, b in zip(metrics(uninterrupted), metrics(tmp_path), strict=True):
        for name in {"elbo_nats", "gradient_norm"} & a.keys():
            np.testing.assert_allclose(a[name], b[name], rtol=1e-3, err_msg=name)


def test_another_config_is_refused(uninterrupted):
    before = (uninterrupted / "config.json").read_text()
    with pytest.raises(UserError, match=r"train\.batch_size: 8 -> 4"):
        train(least(train={"batch_size": 4}), uninterrupted)
    assert (uninterrupted / "config.json").read_text() == before


def test_a_validation_may_come_before_the_first_log(tmp_path):
    config = toy_config(steps=4, eval_every=2, log_every=3)
    assert train(config, tmp_path, task=Adversaries()) is Outcome.FINISHED
    assert [line["step"] for line in metrics(tmp_path) if line["split"] == "valid"] == [2, 4]


def test_a_run_without_its_config_file_still_refuses_another_config(uninterrupted, tmp_path):
    shutil.copytree(uninterrupted, tmp_path, dirs_exist_ok=True)
    (tmp_path / "config.json").unlink()
    with pytest.raises(UserError, match=r"optimizer\.learning_rate"):
        train(least(optimizer={"learning_rate": 0.5}), tmp_path)


def test_a_run_whose_checkpoints_are_lost_overwrites_nothing(uninterrupted, tmp_path):
    shutil.copytree(uninterrupted, tmp_path, dirs_exist_ok=True)
    before = (tmp_path / "metrics.jsonl").read_text()
    shutil.rmtree(tmp_path / "checkpoints")
    with pytest.raises(UserError, match="has saved step 12 and holds no checkpoint"):
        train(least(), tmp_path)
    assert (tmp_path / "metrics.jsonl").read_text() == before


def test_a_finished_run_reports_its_step_and_trains_no_more(uninterrupted, tmp_path, capsys):
    workdir = shutil.copytree(uninterrupted, tmp_path / "copy")
    assert train(least(train={"steps": 10}), workdir) is Outcome.FINISHED
    assert "is at step 12 of config.train.steps=10" in capsys.readouterr().err
    assert_same(final_state(workdir, least()), final_state(uninterrupted, least()))
