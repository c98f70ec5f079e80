"""Bad updates are scaled down, skipped or rolled back; if nothing helps, training fails."""

import gc
from contextlib import closing

import jax
import numpy as np
import optax
import pytest
from states import assert_same, final_state, with_params
from stops import stopping_at
from tiny import least, metrics

from vaejax.errors import TrainingError
from vaejax.likelihoods import DiscretizedLogistic
from vaejax.records.checkpoints import Checkpoints
from vaejax.tasks.vae import task, vae_task
from vaejax.training import step
from vaejax.training.loop import Outcome, Run, train
from vaejax.training.state import shapes


def spoil(monkeypatch, when):
    """Makes loss and gradients NaN at the steps for which `when(step)` is true."""
    good = task.kl_warmup
    monkeypatch.setattr(
        task, "kl_warmup", lambda c, at: jax.numpy.where(when(at), jax.numpy.nan, good(c, at))
    )


def test_one_bad_update_is_skipped_and_counted(tmp_path, monkeypatch):
    spoil(monkeypatch, lambda at: at == 4)
    config = least()
    assert train(config, tmp_path) is Outcome.FINISHED
    skipped = [line["skipped"] for line in metrics(tmp_path) if line["split"] == "train"]
    assert skipped == [0, 1, 1, 1]
    state, net, _ = final_state(tmp_path, config)
    assert state.step == 12 and net.skipped == 1 and state.rollbacks == 0
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(net.params))


def test_a_bad_last_update_costs_no_other(tmp_path, monkeypatch):
    """The last step is saved all the same; otherwise each new start would only repeat it."""
    spoil(monkeypatch, lambda at: at == 11)
    config = least()
    assert train(config, tmp_path) is Outcome.FINISHED
    state, net, _ = final_state(tmp_path, config)
    assert (state.step, net.skipped_in_row) == (12, 1)


def test_an_outlier_fades_before_an_update_takes_it(tmp_path, monkeypatch):
    """Only `guard` limits the gradients; a huge KL term makes the second one an outlier."""
    good = task.beta_at
    monkeypatch.setattr(
        task, "beta_at", lambda c, at: good(c, at) * jax.numpy.where(at == 1, 1e6, 1)
    )
    nets = []
    for steps in (1, 2):
        config = least(
            optimizer={"clip_norm": 0.0, "guard": 2.0, "b1": 0.0},
            train={"steps": steps, "log_every": 1, "eval_every": steps, "save_every": steps},
        )
        train(config, tmp_path / str(steps))
        nets.append(final_state(tmp_path / str(steps), config).net)
    norms = [line["gradient_norm"] for line in metrics(tmp_path / "2") if line["split"] == "train"]
    assert norms[1] > 100 * norms[0]
    assert nets[1].gradient_norm_ema == pytest.approx(norms[0] * 2.0**0.02, rel=1e-4)
    # With b1 = 0 the first moment is the last gradient, as it was scaled for the update.
    taken = [float(optax.tree.norm(net.moments.first)) for net in nets]
    np.testing.assert_allclose(taken, [norms[0], (2 * norms[0]) ** 2 / norms[1]], rtol=1e-4)


def test_bad_parameters_roll_the_run_back(tmp_path, monkeypatch, capsys):
    """The parameters become NaN once, after the checkpoint at step 8: later updates all fail."""
    make, poisoned = step.make_train_step, []

    def make_poisoning(task, settings, mesh, **options):
        real = make(task, settings, mesh, **options)

        def train_step(carry, batch):
            if int(carry.state.step) == 8 and not poisoned:
                poisoned.append(True)
                carry = carry._replace(state=with_params(carry.state, lambda p: p * np.nan))
            return real(carry, batch)

        return train_step

    monkeypatch.setattr(step, "make_train_step", make_poisoning)
    config = least(train={"max_skipped": 1})
    assert train(config, tmp_path) is Outcome.FINISHED
    said = capsys.readouterr().err
    assert "back to step 8 with 0.3 of the learning rate (rollback 1 of 2)" in said
    state, net, _ = final_state(tmp_path, config)
    assert state.step == 12 and state.rollbacks == 1
    np.testing.assert_allclose(state.learning_rate_scale, 0.3)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(net.params))
    steps = [line["step"] for line in metrics(tmp_path) if line["split"] == "train"]
    assert steps == [3, 6, 9, 12], "the metrics of the steps that were rolled back must be dropped"


def test_the_third_time_it_stops_and_names_the_cause(tmp_path, monkeypatch):
    log_prob = DiscretizedLogistic.log_prob
    poisonous = lambda *inputs: log_prob(*inputs) * np.float32(np.nan)  # noqa: E731
    monkeypatch.setattr(DiscretizedLogistic, "log_prob", poisonous)
    config = least(train={"max_skipped": 3})
    with pytest.raises(TrainingError) as error:
        train(config, tmp_path)
    assert "first tensor that is not finite: log_likelihood" in str(error.value)
    assert "examples of that batch: [" in str(error.value)


def test_nothing_is_saved_among_skipped_updates(tmp_path, monkeypatch):
    """Every update from step 5 on fails, so a rollback to a checkpoint at 8 would fail again."""
    spoil(monkeypatch, lambda at: at >= 5)
    with pytest.raises(TrainingError):
        train(least(train={"max_skipped": 6, "eval_every": 12}), tmp_path)
    checkpoints = Checkpoints(tmp_path / "checkpoints", read_only=True)
    assert checkpoints.steps() == [4]


def test_a_stop_after_a_skipped_update_saves_and_resumes_exactly(tmp_path, monkeypatch):
    spoil(monkeypatch, lambda at: (at == 6) | (at == 7))
    config = least(train={"log_every": 1, "save_every": 4})
    assert train(config, tmp_path / "whole") is Outcome.FINISHED
    for stop in (7, 8):
        torn = tmp_path / str(stop)
        with stopping_at(stop):
            assert train(config, torn) is Outcome.INTERRUPTED
        with closing(Checkpoints(torn / "checkpoints", read_only=True)) as checkpoints:
            assert checkpoints.steps()[-1] == stop
        assert train(config, torn) is Outcome.FINISHED
        assert_same(final_state(tmp_path / "whole", config), final_state(torn, config))
        assert metrics(tmp_path / "whole") == metrics(torn)


def test_a_rollback_passes_over_what_was_saved_among_failing_updates(tmp_path, monkeypatch, capsys):
    """Every update from step 5 on fails; a stop at step 6 saves after the first of them."""
    spoil(monkeypatch, lambda at: at >= 5)
    config = least(train={"log_every": 1, "max_skipped": 3, "eval_every": 12})
    with stopping_at(6):
        assert train(config, tmp_path) is Outcome.INTERRUPTED
    with pytest.raises(TrainingError):
        train(config, tmp_path)
    assert capsys.readouterr().err.count("back to step 4 with 0.") == 2
    checkpoints = Checkpoints(tmp_path / "checkpoints", read_only=True)
    assert checkpoints.steps() == [4]
    checkpoints.close()


def test_a_rollback_passes_over_a_checkpoint_that_was_damaged_meanwhile(
    tmp_path, monkeypatch, capsys
):
    """Every update from step 9 on fails; before the rollback the checkpoint at 8 is damaged."""
    spoil(monkeypatch, lambda at: at >= 9)
    roll_back = Run._roll_back

    def damage_first(run, trouble):
        run._wait_for_checkpoints()
        for file in (tmp_path / "checkpoints" / "00000008" / "meta").rglob("*"):
            if file.is_file():
                file.write_bytes(b"{")
        roll_back(run, trouble)

    monkeypatch.setattr(Run, "_roll_back", damage_first)
    with pytest.raises(TrainingError):
        train(
            least(train={"log_every": 1, "max_skipped": 3, "eval_every": 12, "keep": 2}), tmp_path
        )
    said = capsys.readouterr().err
    assert "00000008 is damaged" in said and "back to step 4 with 0.3 of" in said


@pytest.mark.slow
def test_a_rollback_holds_one_state_at_a_time(tmp_path, monkeypatch):
    """The failed state is deleted from the device before the checkpoint is restored."""
    spoil(monkeypatch, lambda at: at >= 5)
    restore, held = Checkpoints.restore, []

    def measured(self, step, like, shardings):
        gc.collect()
        held.append(sum(array.nbytes for array in jax.live_arrays()))
        return restore(self, step, like, shardings)

    monkeypatch.setattr(Checkpoints, "restore", measured)
    config = least(train={"max_skipped": 3, "eval_every": 12}, model={"widths": (32, 64)})
    gc.collect()
    before = sum(array.nbytes for array in jax.live_arrays())
    with pytest.raises(TrainingError):
        train(config, tmp_path)
    leaves = jax.tree.leaves(shapes(vae_task(config)))
    state = sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)
    assert len(held) == 2 and max(held) - before < state / 2
