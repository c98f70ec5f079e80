"""The account of what a run's time is spent on, over all of its starts."""

import json
import time

import pytest
from states import final_state
from tiny import least

from vaejax.records.goodput import FILE, PHASES, Clock, account, summary
from vaejax.training.loop import Outcome, train


def write(workdir, *lines):
    seconds = dict.fromkeys(PHASES, 0.0)
    lines = [{**line, "seconds": {**seconds, **line["seconds"]}} for line in lines]
    (workdir / FILE).write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_steps_made_again_are_lost(tmp_path):
    """The run is killed at step 30, resumes from step 20 after 5 s, and finishes."""
    write(
        tmp_path,
        {"start": 100.0, "time": 104.0, "first_step": 0, "step": 10, "seconds": {"steps": 3.0}},
        {"start": 100.0, "time": 112.0, "first_step": 0, "step": 30,
         "seconds": {"start": 2.0, "compile": 1.0, "steps": 9.0}},
        {"start": 117.0, "time": 127.0, "first_step": 20, "step": 50,
         "seconds": {"start": 1.0, "steps": 6.0, "evaluation": 3.0}},
    )  # fmt: skip
    found = account(tmp_path)
    assert found["lost"] == pytest.approx(3.0) and found["between"] == pytest.approx(5.0)
    assert found["steps"] == pytest.approx(9 + 6 - 3)
    assert sum(found.values()) == pytest.approx(127 - 100)
    assert summary(tmp_path) == (
        "of 27 s 44.4% went into steps; start 11.1%, compile 3.7%, evaluation 11.1%, lost 11.1%, "
        "between 18.5%"
    )


def test_a_phase_ends_where_it_fails(tmp_path):
    clock = Clock()
    clock.open(tmp_path, 0)
    with pytest.raises(ValueError), clock.phase("evaluation"):
        raise ValueError
    time.sleep(0.05)
    clock.note(1)
    clock.close()
    seconds = json.loads((tmp_path / FILE).read_text())["seconds"]
    assert seconds["steps"] > 0.04 > seconds["evaluation"]


def test_a_line_cut_off_by_a_kill_is_passed_over(tmp_path):
    write(tmp_path, {"start": 1.0, "time": 2.0, "first_step": 0, "step": 9,
                     "seconds": {"steps": 1.0}})  # fmt: skip
    with (tmp_path / FILE).open("a") as file:
        file.write('{"start": 1.0, "ti')
    assert account(tmp_path)["steps"] == 1.0


def test_without_a_file_there_is_no_account(tmp_path):
    assert account(tmp_path) == {}


def test_the_inner_phase_counts_and_all_time_is_counted(tmp_path):
    begun = time.monotonic()
    clock = Clock()
    clock.open(tmp_path, 0)
    with clock.phase("evaluation"):
        time.sleep(0.01)
        with clock.phase("checkpoints"):
            time.sleep(0.02)
    clock.note(1)
    clock.close()
    passed = time.monotonic() - begun
    found = account(tmp_path)
    assert found["evaluation"] >= 0.01 and found["checkpoints"] >= 0.02
    assert sum(found.values()) <= passed + 0.01


def test_a_run_goes_on_to_more_steps_and_accounts_for_all_of_its_starts(tmp_path, capsys):
    for steps in (6, 12):
        config = least(train={"steps": steps})
        assert train(config, tmp_path) is Outcome.FINISHED
        assert final_state(tmp_path, config).state.step == steps
    said = capsys.readouterr().err
    assert "time: of " in said and "went into steps" in said
    found = account(tmp_path)
    assert found["lost"] == 0 and found["between"] > 0
    assert all(found[name] > 0 for name in ("start", "compile", "steps", "evaluation"))
