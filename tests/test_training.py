"""Runs the training loop in this process: it learns, and it resumes exactly."""

import json
import shutil
from contextlib import nullcontext

import jax
import numpy as np
import pytest
import tiny as tiny_run
from states import assert_same, final_state
from stops import stopping_at
from tiny import least, metrics

from vaejax.cost.compiled_step import traced_step
from vaejax.errors import UserError
from vaejax.runtime.mesh import make_mesh
from vaejax.tasks.vae import evaluation, vae_task
from vaejax.training import loop
from vaejax.training.loop import Outcome, train
from vaejax.training.state import starting


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


def test_several_updates_of_resident_pictures_are_the_same_updates(uninterrupted, tmp_path):
    train(
        least(data={"on_device": "always"}, train={"steps_per_dispatch": 2, "log_every": 6}),
        tmp_path,
    )
    bits = [
        [line["elbo_bits_per_dim"] for line in metrics(run) if line["split"] == "valid"]
        for run in (tmp_path, uninterrupted)
    ]
    assert len(bits[0]) == 2
    np.testing.assert_allclose(*bits, rtol=1e-4)


def test_runs_from_several_seeds_share_a_program():
    programs, starts = set(), []
    for seed in (0, 1):
        config = least(train={"seed": seed})
        task = vae_task(config)
        programs.add(traced_step(task, config, make_mesh(8)).lower().as_text())
        starts.append(jax.jit(starting(task))(jax.random.key(seed)).state)
    assert len(programs) == 1
    assert not np.array_equal(starts[0].key, starts[1].key)


def test_it_learns_and_leaves_what_it_promised(uninterrupted):
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


def test_a_stop_at_any_step_changes_nothing(uninterrupted, tmp_path):
    """Stops after 1, 5 and 7 steps, between two logs, and resumes each time."""
    config = least()
    for at in (1, 5, 7):
        with stopping_at(at):
            assert train(config, tmp_path) is Outcome.INTERRUPTED
    assert train(config, tmp_path) is Outcome.FINISHED
    assert_same(final_state(uninterrupted, config), final_state(tmp_path, config))
    assert metrics(uninterrupted) == metrics(tmp_path)


def test_a_stop_during_validation_changes_nothing(uninterrupted, tmp_path, monkeypatch):
    """Requests the stop in the first of three batches, in each of the two validations."""
    config, stop, calls = least(), loop.Stop(), []
    make = evaluation.make_eval_step

    def make_stopping(*args):
        real = make(*args)

        def eval_step(*args):
            calls.append(args)
            stop.requested = len(calls) in (1, 5)
            return real(*args)

        return eval_step

    monkeypatch.setattr(evaluation, "make_eval_step", make_stopping)
    monkeypatch.setattr(loop, "stop_on_signal", lambda: nullcontext(stop))
    for stopped_at in (6, 12):
        assert train(config, tmp_path) is Outcome.INTERRUPTED
        assert final_state(tmp_path, config).state.step == stopped_at
        assert metrics(tmp_path)[-1]["split"] == "train", "an interrupted validation is not logged"
        stop.requested = False
    assert train(config, tmp_path) is Outcome.FINISHED
    assert len(calls) == 1 + 3 + 1 + 3
    assert_same(final_state(uninterrupted, config), final_state(tmp_path, config))
    assert metrics(uninterrupted) == metrics(tmp_path)


def test_several_steps_in_one_dispatch_change_nothing(uninterrupted, tmp_path):
    config = least(train={"steps_per_dispatch": 3, "save_every": 3})
    assert train(config, tmp_path) is Outcome.FINISHED
    one, several = metrics(uninterrupted), metrics(tmp_path)
    for a, b in zip(one, several, strict=True):
        assert a["step"] == b["step"]
        np.testing.assert_allclose(a["elbo_nats"], b["elbo_nats"], rtol=1e-4)
    # The first window is one dispatch, which includes the compilation, so it has no rate.
    lines = map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
    rates = ["images_per_second" in line for line in lines if line["split"] == "train"]
    assert rates == [False, True, True, True]


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


def test_changed_data_is_refused(tmp_path):
    pictures = np.random.default_rng(0).integers(0, 256, (40, 28, 28, 3), np.uint8)
    path = tmp_path / "pictures.npy"
    np.save(path, pictures)
    config = least(data={"source": "array", "path": str(path)}, train={"steps": 4})
    train(config, tmp_path / "run")
    np.save(path, 255 - pictures)
    with pytest.raises(UserError, match="the data is not what"):
        train(tiny_run.without(config, "train", steps=8), tmp_path / "run")


def test_validation_may_come_before_the_first_log(tmp_path):
    config = least(train={"steps": 4, "eval_every": 2, "log_every": 3})
    assert train(config, tmp_path) is Outcome.FINISHED
    assert [line["step"] for line in metrics(tmp_path) if line["split"] == "valid"] == [2, 4]


def test_a_lost_config_does_not_let_another_run_in(uninterrupted, tmp_path):
    shutil.copytree(uninterrupted, tmp_path, dirs_exist_ok=True)
    (tmp_path / "config.json").unlink()
    with pytest.raises(UserError, match=r"optimizer\.learning_rate"):
        train(least(optimizer={"learning_rate": 0.5}), tmp_path)


def test_lost_checkpoints_are_named_before_anything_is_overwritten(uninterrupted, tmp_path):
    shutil.copytree(uninterrupted, tmp_path, dirs_exist_ok=True)
    before = (tmp_path / "metrics.jsonl").read_text()
    shutil.rmtree(tmp_path / "checkpoints")
    with pytest.raises(UserError, match="has saved step 12 and holds no checkpoint"):
        train(least(), tmp_path)
    assert (tmp_path / "metrics.jsonl").read_text() == before


def test_a_finished_run_says_that_nothing_is_left(uninterrupted, tmp_path, capsys):
    workdir = shutil.copytree(uninterrupted, tmp_path / "copy")
    assert train(least(train={"steps": 10}), workdir) is Outcome.FINISHED
    assert "is at step 12 of config.train.steps=10" in capsys.readouterr().err
