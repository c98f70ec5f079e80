"""Tests of training that diverges although all numbers are finite, and of its rollbacks."""

import math
from contextlib import closing

import pytest
from commands import command
from hypothesis import given
from hypothesis import strategies as st
from states import assert_same, final_state
from stops import stopping_at
from tiny import CONFIG_FILE, LEAST, tiny

from vaejax.records.checkpoints import Checkpoints
from vaejax.tasks.vae import task
from vaejax.tasks.vae.divergence import explain_divergence, loss_bits
from vaejax.tasks.vae.health import Health
from vaejax.training.loop import Outcome, train


def window(bits: float, config, *, kl: float = 0.0, beta: float = 1.0) -> dict:
    """Returns metrics of a window: `kl` in nats and, at beta=1, a loss of `bits` bits/dim."""
    nats = bits * math.prod(config.data.shape) * math.log(2.0)
    return {"log_likelihood_nats": kl - nats, "kl_nats": kl, "beta": beta}


@given(bits=st.lists(st.floats(0.1, 7.9), min_size=1, max_size=20))
def test_below_raw_pixels_nothing_has_diverged(bits):
    config = tiny()
    for step, value in enumerate(bits, 1):
        said = explain_divergence(config, 1000 * step, window(value, config), min(bits[:step]))
        assert not said


@given(bits=st.floats(8.01, 1e30))
def test_above_raw_pixels_a_calibrated_run_has(bits):
    config = tiny()
    said = explain_divergence(config, 1000, window(bits, config), math.inf)
    assert "training has diverged" in said and "the 8 of raw pixels" in said


@pytest.mark.parametrize(
    ("step", "bits", "diverged"), [(10, 8.3, False), (10, 9.1, False), (10, 16.5, True)]
)
def test_while_the_rate_warms_up_only_an_explosion_has(step, bits, diverged):
    config = tiny()
    assert not explain_divergence(config, 1, window(8.1, config), math.inf)
    assert bool(explain_divergence(config, step, window(bits, config), 8.1)) is diverged


def test_a_scale_that_is_set_too_small_is_no_divergence_while_the_loss_falls():
    config = tiny(likelihood={"scale": "fixed", "fixed_scale": 0.5})
    for step, bits, lowest in ((300, 900.0, math.inf), (600, 300.0, 900.0), (900, 310.0, 300.0)):
        assert not explain_divergence(config, step, window(bits, config), lowest)
    assert explain_divergence(config, 1200, window(700.0, config), 300.0)


@given(bits=st.floats(0.0, 1e6), kl=st.floats(0.0, 1e3))
def test_the_loss_is_in_bits_for_each_dimension(bits, kl):
    config = tiny()
    assert loss_bits(config, window(bits, config, kl=kl)) == pytest.approx(bits, abs=1e-6)


def test_an_autoencoder_without_a_kl_term_may_spend_as_many_nats_as_it_likes():
    config = tiny(objective={"beta": 0.0})
    assert not explain_divergence(config, 1000, window(1.0, config, kl=1e6, beta=0.0), math.inf)


def test_with_five_bits_raw_pixels_cost_five():
    config = tiny(likelihood={"bits": 5})
    assert explain_divergence(config, 1000, window(5.1, config), math.inf)


def test_a_number_that_is_none_is_left_to_those_who_count_such_updates():
    config = tiny()
    assert not explain_divergence(config, 1000, window(math.nan, config), math.inf)


@pytest.mark.parametrize(
    "flags",
    [
        ("learning_rate=1", "clip_norm=0", "warmup_steps=0"),
        ("learning_rate=0.3", "clip_norm=0", "warmup_steps=0"),
    ],
    ids=["1", "0.3"],
)
def test_a_diverged_run_is_called_so_and_offers_no_faces(flags, tmp_path):
    result = command(
        "main",
        f"--config={CONFIG_FILE}",
        f"--workdir={tmp_path / 'run'}",
        *LEAST,
        "--config.train.steps=120",
        *(f"--config.optimizer.{flag}" for flag in flags),
    )
    assert result.returncode == 3, result.stderr
    last = result.stderr.splitlines()[-1]
    assert last.startswith("error: ") and "training has diverged" in last
    assert "config.optimizer.learning_rate" in last
    for word in ("overfitting", "collapse", "new faces", "Traceback"):
        assert word not in result.stderr


def disturb(monkeypatch, at: set[int]) -> None:
    """Makes the run report divergence once at each step in `at`, from which it is then removed."""

    def explain_more(config, step, values, lowest):
        if step in at:
            at.remove(step)
            return "training has diverged"
        return explain_divergence(config, step, values, lowest)

    monkeypatch.setattr(task, "explain_divergence", explain_more)


@pytest.mark.slow
def test_rollbacks_are_forgotten_after_a_long_clean_stretch(tmp_path, monkeypatch, capsys):
    """Divergence is reported three times; without forgetting, the third would end the run."""
    disturb(monkeypatch, {6, 15, 24})
    config = tiny(
        train={"steps": 36, "rollback_memory": 6, "eval_every": 36},
        data={"on_device": "always"},
    )
    assert train(config, tmp_path) is Outcome.FINISHED
    said = capsys.readouterr().err
    assert said.count("(rollback 1 of 2)") == 3
    assert "6 updates without trouble; the learning rate climbs back to 1 of what is set" in said
    state = final_state(tmp_path, config).state
    assert (state.rollbacks, state.learning_rate_scale) == (0, 1.0)


@pytest.mark.slow
def test_what_is_forgotten_does_not_depend_on_stops(tmp_path, monkeypatch, capsys):
    """Checkpoints contain the step of the last rollback, and the lowest loss."""
    config = tiny(train={"steps": 24, "rollback_memory": 9, "eval_every": 24})
    ends, lowest = [], []
    for stop in (30, 13):
        disturb(monkeypatch, {6})
        with stopping_at(stop):
            train(config, tmp_path / str(stop))
        assert train(config, tmp_path / str(stop)) is Outcome.FINISHED
        ends.append(final_state(tmp_path / str(stop), config))
        with closing(Checkpoints(tmp_path / str(stop) / "checkpoints", read_only=True)) as saved:
            lowest.append(saved.meta(24)["lowest_loss"])
        monkeypatch.undo()
    assert_same(*ends)
    assert ends[0].state.rollbacks == 0
    assert lowest[0] == lowest[1] < 9.0
    assert capsys.readouterr().err.count("step 15: 9 updates without trouble") == 2


def test_whoever_was_rolled_back_and_ends_no_better_than_raw_pixels_has_not_recovered():
    config = tiny(train={"steps": 120})
    values = window(8.1, config)
    assert not explain_divergence(config, 120, values | {"rollbacks": 0}, math.inf)
    assert not explain_divergence(config, 117, values | {"rollbacks": 1}, math.inf)
    assert explain_divergence(config, 120, values | {"rollbacks": 1}, math.inf)


def test_what_has_learned_nothing_has_not_overfitted():
    health = Health(tiny())
    train, valid = {"elbo_bits_per_dim": 8.4}, {"elbo_bits_per_dim": 8.0}
    assert health.validation(train, valid) == []
    assert health.validation(train, valid | {"elbo_bits_per_dim": 8.9}) == []
