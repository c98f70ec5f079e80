"""Tests of training that diverges although all numbers are finite, and of its rollbacks."""

import math
from contextlib import closing

import pytest
from commands import command
from hypothesis import given
from hypothesis import strategies as st
from states import assert_same, last_carry
from stops import stopping_at
from tiny import CONFIG_FILE, LEAST, metrics, tiny
from toy import Adversaries, toy_config

from vaejax.records.checkpoints import Checkpoints
from vaejax.tasks.vae.divergence import explain_divergence, loss_bits
from vaejax.tasks.vae.health import Health
from vaejax.training.loop import Outcome, train


def window(bits: float, config, *, kl: float = 0.0, beta: float = 1.0) -> dict:
    """Returns metrics of a window: `kl` in nats and, at beta=1, a loss of `bits` bits/dim."""
    nats = bits * math.prod(config.data.shape) * math.log(2.0)
    return {"log_likelihood_nats": kl - nats, "kl_nats": kl, "beta": beta}


@given(bits=st.lists(st.floats(0.1, 7.9), min_size=1, max_size=20))
def test_a_loss_below_raw_pixels_is_no_divergence(bits):
    config = tiny()
    for step, value in enumerate(bits, 1):
        assert not explain_divergence(config, 1000 * step, window(value, config), min(bits[:step]))


@given(bits=st.floats(8.01, 1e30))
def test_a_loss_above_raw_pixels_is_divergence_where_the_scale_is_learned(bits):
    config = tiny()
    message = explain_divergence(config, 1000, window(bits, config), math.inf)
    assert "training has diverged" in message and "the 8 of raw pixels" in message


@pytest.mark.parametrize(
    ("step", "bits", "diverged"), [(10, 8.3, False), (10, 9.1, False), (10, 16.5, True)]
)
def test_while_the_rate_warms_up_only_a_doubled_loss_is_divergence(step, bits, diverged):
    config = tiny()
    assert not explain_divergence(config, 1, window(8.1, config), math.inf)
    assert bool(explain_divergence(config, step, window(bits, config), 8.1)) is diverged


def test_a_large_loss_under_a_fixed_scale_is_no_divergence_until_it_doubles():
    config = tiny(likelihood={"scale": "fixed", "fixed_scale": 0.5})
    for step, bits, lowest in ((300, 900.0, math.inf), (600, 300.0, 900.0), (900, 310.0, 300.0)):
        assert not explain_divergence(config, step, window(bits, config), lowest)
    assert explain_divergence(config, 1200, window(700.0, config), 300.0)


@given(bits=st.floats(0.0, 1e6), kl=st.floats(0.0, 1e3), beta=st.floats(0.0, 3.0))
def test_the_loss_is_in_bits_per_dimension_with_the_kl_weighted_by_at_most_one(bits, kl, beta):
    config = tiny()
    not_counted = (1.0 - min(beta, 1.0)) * kl / (math.prod(config.data.shape) * math.log(2.0))
    loss = loss_bits(config, window(bits, config, kl=kl, beta=beta))
    assert loss == pytest.approx(bits - not_counted, abs=1e-6)


def test_a_large_kl_of_weight_zero_is_no_divergence():
    config = tiny(objective={"beta": 0.0})
    assert not explain_divergence(config, 1000, window(1.0, config, kl=1e6, beta=0.0), math.inf)


def test_with_five_bits_raw_pixels_cost_five():
    config = tiny(likelihood={"bits": 5})
    assert explain_divergence(config, 1000, window(5.1, config), math.inf)
    assert not explain_divergence(config, 1000, window(4.9, config), math.inf)


def test_a_loss_that_is_nan_is_no_divergence():
    config = tiny()
    assert not explain_divergence(config, 1000, window(math.nan, config), math.inf)


def test_a_diverged_run_ends_with_an_error_and_draws_no_faces(tmp_path):
    result = command(
        "main",
        f"--config={CONFIG_FILE}",
        f"--workdir={tmp_path / 'run'}",
        *LEAST,
        "--config.train.steps=120",
        "--config.optimizer.learning_rate=0.3",
        "--config.optimizer.clip_norm=0",
        "--config.optimizer.warmup_steps=0",
    )
    assert result.returncode == 3, result.stderr
    last = result.stderr.splitlines()[-1]
    assert last.startswith("error: ") and "training has diverged" in last
    assert "still after 2 rollbacks; lower config.optimizer.learning_rate=0.3" in last
    for word in ("overfitting", "collapse", "new faces", "Traceback"):
        assert word not in result.stderr


class Diverging(Adversaries):
    """Reports divergence once at each of some steps."""

    def __init__(self, at):
        super().__init__()
        self._at = set(at)

    def divergence(self, step, values, lowest):
        if step in self._at:
            self._at.remove(step)
            return "training has diverged"
        return super().divergence(step, values, lowest)


def test_rollbacks_are_forgotten_after_enough_updates_without_trouble(tmp_path, capsys):
    """Divergence is reported three times; without forgetting, the third would end the run."""
    config = toy_config(steps=36, log_every=3, rollback_memory=6, eval_every=36)
    task = Diverging({6, 15, 24})
    assert train(config, tmp_path, task=task) is Outcome.FINISHED
    stderr = capsys.readouterr().err
    assert stderr.count("(rollback 1 of 2)") == 3
    assert "6 updates without trouble; the learning rate climbs back to 1 of what is set" in stderr
    state = last_carry(tmp_path, task).state
    assert (state.rollbacks, state.learning_rate_scale) == (0, 1.0)


def test_a_stop_does_not_change_when_a_rollback_is_forgotten(tmp_path, capsys):
    """Checkpoints contain the step of the last rollback, and the lowest loss."""
    config = toy_config(log_every=3, rollback_memory=9, eval_every=24)
    final_states, lowest = [], []
    for name in ("uninterrupted", "interrupted"):
        task = Diverging({6})
        if name == "interrupted":
            with stopping_at(13):
                assert train(config, tmp_path / name, task=task) is Outcome.INTERRUPTED
        assert train(config, tmp_path / name, task=task) is Outcome.FINISHED
        final_states.append(last_carry(tmp_path / name, task))
        with closing(Checkpoints(tmp_path / name / "checkpoints", read_only=True)) as saved:
            lowest.append(saved.meta(24)["lowest_loss"])
    assert_same(*final_states)
    assert final_states[0].state.rollbacks == 0
    losses = [line["distance"] for line in metrics(tmp_path / name) if line["split"] == "train"]
    assert lowest == [min(losses)] * 2
    assert capsys.readouterr().err.count("step 15: 9 updates without trouble") == 2


def test_in_the_first_200_updates_the_loss_may_exceed_raw_pixels_by_one_bit():
    config = tiny(train={"steps": 300}, optimizer={"warmup_steps": 10})
    for step, limit in ((60, 9.0), (200, 9.0), (201, 8.0)):
        assert not explain_divergence(config, step, window(limit - 0.1, config), math.inf)
        assert explain_divergence(config, step, window(limit + 0.1, config), math.inf)


def test_a_run_that_was_rolled_back_must_end_better_than_raw_pixels():
    config = tiny(train={"steps": 120})
    values = window(8.1, config)
    assert not explain_divergence(config, 120, values | {"rollbacks": 0}, math.inf)
    assert not explain_divergence(config, 117, values | {"rollbacks": 1}, math.inf)
    assert explain_divergence(config, 120, values | {"rollbacks": 1}, math.inf)


def test_a_model_worse_than_raw_pixels_has_not_overfitted():
    health = Health(tiny())
    train, valid = {"elbo_bits_per_dim": 8.4}, {"elbo_bits_per_dim": 8.0}
    assert health.validation(train, valid) == []
    assert health.validation(train, valid | {"elbo_bits_per_dim": 8.9}) == []
