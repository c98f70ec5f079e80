"""Bad updates are scaled down, skipped or rolled back; if nothing helps, training fails."""

import dataclasses
import gc
from contextlib import closing

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from states import assert_same, last_carry
from stops import stopping_at
from tiny import least, metrics
from toy import SETTINGS, Adversaries, Spoiled, toy_config
from toy_reference import means_of_a_run, played

from vaejax.errors import TrainingError
from vaejax.likelihoods import DiscretizedLogistic
from vaejax.records.checkpoints import Checkpoints
from vaejax.training import step
from vaejax.training.loop import Outcome, Run, train
from vaejax.training.state import shapes


def short(**train_settings):
    """Returns the config of a run of 12 updates of the toy task, validated at its end."""
    return toy_config(**{"steps": 12, "log_every": 3, "eval_every": 12, **train_settings})


def saved_steps(workdir):
    with closing(Checkpoints(workdir / "checkpoints", read_only=True)) as checkpoints:
        return checkpoints.steps()


def assert_parameters(state, expected):
    for name, kernel in expected.items():
        np.testing.assert_allclose(
            state.nets[name].params["kernel"], kernel, rtol=1e-4, err_msg=name
        )


def test_one_bad_update_is_skipped_and_counted(tmp_path):
    """The run ends as one, computed with NumPy, that never saw the batch of that update."""
    config, task = short(), Spoiled(lambda at: at == 4)
    assert train(config, tmp_path, task=task) is Outcome.FINISHED
    skipped = [line["skipped"] for line in metrics(tmp_path) if line["split"] == "train"]
    assert skipped == [0, 1, 1, 1]
    state, _ = last_carry(tmp_path, task)
    assert state.step == 12 and state.rollbacks == 0
    assert {name: int(net.skipped) for name, net in state.nets.items()} == {
        "player": 1, "adversary": 1, "fixed": 0
    }  # fmt: skip
    assert_parameters(state, played(np.delete(means_of_a_run(config), 4, axis=0)))


def test_a_bad_last_update_is_saved(tmp_path):
    """Otherwise each new start would only repeat it."""
    task = Spoiled(lambda at: at == 11)
    assert train(short(), tmp_path, task=task) is Outcome.FINISHED
    state, _ = last_carry(tmp_path, task)
    assert (state.step, state.skipped_in_row()) == (12, 1)


class Outlier(Adversaries):
    """Only the player is trained; in its second update the loss is a million times as large."""

    def __init__(self):
        super().__init__(adversary=None)
        self.optimizers["player"] = dataclasses.replace(SETTINGS, guard=2.0, b1=0.0)

    def loss(self, net, params, batch, keys, step):
        loss, sums = super().loss(net, params, batch, keys, step)
        return loss * jnp.where(step == 1, 1e6, 1.0), sums


def test_an_outlier_is_scaled_down_before_the_update(tmp_path):
    """Only `guard` limits the gradients."""
    task = Outlier()
    train(short(steps=2, log_every=1, eval_every=2, save_every=2), tmp_path, task=task)
    norms = [line["gradient_norm"] for line in metrics(tmp_path) if line["split"] == "train"]
    assert norms[1] > 1e4 * norms[0]
    net = last_carry(tmp_path, task).state.nets["player"]
    assert net.gradient_norm_ema == pytest.approx(norms[0] * 2.0**0.02, rel=1e-4)
    # With b1 = 0 the first moment is the last gradient, as it was scaled for the update.
    taken = float(optax.tree.norm(net.moments.first))
    assert taken == pytest.approx((2 * norms[0]) ** 2 / norms[1], rel=1e-4)


def test_bad_parameters_roll_the_run_back(tmp_path, monkeypatch, capsys):
    """The parameters become NaN once, after the checkpoint at step 8: later updates all fail.

    The run ends as one, computed with NumPy, whose learning rate is lower from step 8 on.
    """
    make, poisoned = step.make_train_step, []

    def make_poisoning(task, settings, mesh, **options):
        real = make(task, settings, mesh, **options)

        def train_step(carry, batch):
            if int(carry.state.step) == 8 and not poisoned:
                poisoned.append(True)
                nets = carry.state.nets
                nan = jax.tree.map(lambda leaf: leaf * np.nan, nets["player"].params)
                nets = {**nets, "player": nets["player"].replace(params=nan)}
                carry = carry._replace(state=carry.state.replace(nets=nets))
            return real(carry, batch)

        return train_step

    monkeypatch.setattr(step, "make_train_step", make_poisoning)
    config, task = short(max_skipped=1), Adversaries()
    assert train(config, tmp_path, task=task) is Outcome.FINISHED
    stderr = capsys.readouterr().err
    assert "back to step 8 with 0.1 of the learning rate (rollback 1 of 2)" in stderr
    state, _ = last_carry(tmp_path, task)
    assert state.step == 12 and state.rollbacks == 1
    np.testing.assert_allclose(state.learning_rate_scale, 0.1)
    assert_parameters(state, played(means_of_a_run(config), [1.0] * 8 + [0.1] * 4))
    rates = {
        line["step"]: line["learning_rate_player"]
        for line in metrics(tmp_path)
        if line["split"] == "train"
    }
    assert rates == pytest.approx({3: 0.1, 6: 0.1, 9: 0.01, 12: 0.01}), (
        "the metrics of the steps that were rolled back must be dropped"
    )


def test_the_third_rollback_ends_the_run_and_names_the_cause(tmp_path, monkeypatch):
    log_prob = DiscretizedLogistic.log_prob
    poisonous = lambda *inputs: log_prob(*inputs) * np.float32(np.nan)  # noqa: E731
    monkeypatch.setattr(DiscretizedLogistic, "log_prob", poisonous)
    config = least(train={"max_skipped": 3})
    with pytest.raises(TrainingError) as error:
        train(config, tmp_path)
    assert "still after 2 rollbacks" in str(error.value)
    assert "first tensor that is not finite: log_likelihood" in str(error.value)
    assert "examples of that batch: [" in str(error.value)


def test_nothing_is_saved_among_skipped_updates(tmp_path):
    """Every update from step 5 on fails, so a rollback to a checkpoint at 8 would fail again."""
    with pytest.raises(TrainingError, match="not finite: norm of the gradient of player"):
        train(short(max_skipped=6), tmp_path, task=Spoiled(lambda at: at >= 5))
    assert saved_steps(tmp_path) == [4]


def test_a_stop_after_a_skipped_update_saves_and_resumes_exactly(tmp_path):
    config, task = short(log_every=1), Spoiled(lambda at: (at == 6) | (at == 7))
    assert train(config, tmp_path / "uninterrupted", task=task) is Outcome.FINISHED
    for stop in (7, 8):
        interrupted = tmp_path / str(stop)
        with stopping_at(stop):
            assert train(config, interrupted, task=task) is Outcome.INTERRUPTED
        assert saved_steps(interrupted)[-1] == stop
        assert train(config, interrupted, task=task) is Outcome.FINISHED
        assert_same(last_carry(tmp_path / "uninterrupted", task), last_carry(interrupted, task))
        assert metrics(tmp_path / "uninterrupted") == metrics(interrupted)


def test_a_rollback_skips_checkpoints_saved_among_failing_updates(tmp_path, capsys):
    """Every update from step 5 on fails; a stop at step 6 saves after the first of them."""
    config, task = short(log_every=1, max_skipped=3), Spoiled(lambda at: at >= 5)
    with stopping_at(6):
        assert train(config, tmp_path, task=task) is Outcome.INTERRUPTED
    assert saved_steps(tmp_path) == [4, 6]
    with pytest.raises(TrainingError):
        train(config, tmp_path, task=task)
    assert capsys.readouterr().err.count("back to step 4 with 0.") == 2
    assert saved_steps(tmp_path) == [4]


def test_a_rollback_skips_a_checkpoint_damaged_during_the_run(tmp_path, monkeypatch, capsys):
    """Every update from step 9 on fails; before the rollback the checkpoint at 8 is damaged."""
    roll_back = Run._roll_back

    def damage_first(run, trouble):
        run._wait_for_checkpoints()
        for file in (tmp_path / "checkpoints" / "00000008" / "meta").rglob("*"):
            if file.is_file():
                file.write_bytes(b"{")
        roll_back(run, trouble)

    monkeypatch.setattr(Run, "_roll_back", damage_first)
    with pytest.raises(TrainingError):
        train(short(log_every=1, max_skipped=3, keep=2), tmp_path, task=Spoiled(lambda at: at >= 9))
    stderr = capsys.readouterr().err
    assert "00000008 is damaged" in stderr and "back to step 4 with 0.1 of" in stderr


class Heavy(Spoiled):
    """Has parameters of some size, which nothing uses."""

    def init(self, key):
        return {
            name: {**params, "unused": jnp.zeros(250_000)}
            for name, params in super().init(key).items()
        }


def test_a_rollback_holds_one_state_at_a_time(tmp_path, monkeypatch):
    """The failed state is deleted from the device before the checkpoint is restored."""
    restore, held = Checkpoints.restore, []

    def measured(self, step, like, shardings):
        gc.collect()
        held.append(sum(array.nbytes for array in jax.live_arrays()))
        return restore(self, step, like, shardings)

    monkeypatch.setattr(Checkpoints, "restore", measured)
    task = Heavy(lambda at: at >= 5)
    gc.collect()
    before = sum(array.nbytes for array in jax.live_arrays())
    with pytest.raises(TrainingError):
        train(short(max_skipped=3), tmp_path, task=task)
    state = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes(task)))
    assert len(held) == 2 and max(held) - before < state / 2
