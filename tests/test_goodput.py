"""The account of what a run's time is spent on, over all of its starts."""

import json

import pytest
from states import final_state
from tiny import least

from vaejax.records import goodput
from vaejax.records.goodput import FILE, PHASES, Clock, account, last_saved, summary
from vaejax.training.loop import Outcome, train


def write(workdir, *lines):
    seconds = dict.fromkeys(PHASES, 0.0)
    lines = [{**line, "seconds": {**seconds, **line["seconds"]}} for line in lines]
    (workdir / FILE).write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_repeated_steps_count_as_lost(tmp_path):
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


class ManualClock:
    """A clock in place of the module `time`."""

    def __init__(self, now: float):
        self.now = now

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now


@pytest.fixture
def manual_clock(monkeypatch) -> ManualClock:
    clock = ManualClock(100.0)
    monkeypatch.setattr(goodput, "time", clock)
    return clock


def test_of_nested_phases_the_inner_one_counts(tmp_path, manual_clock):
    clock = Clock()
    manual_clock.now += 1
    clock.open(tmp_path, 0)
    manual_clock.now += 2
    with clock.phase("evaluation"):
        manual_clock.now += 4
        with clock.phase("checkpoints"):
            manual_clock.now += 8
        manual_clock.now += 16
    manual_clock.now += 32
    clock.move(0.5, "data_wait")
    clock.note(1)
    clock.close()
    expected = {"start": 1, "steps": 2 + 32 - 0.5, "evaluation": 4 + 16, "checkpoints": 8,
                "data_wait": 0.5, "compile": 0, "lost": 0, "between": 0}  # fmt: skip
    assert account(tmp_path) == expected


def test_a_phase_ends_where_it_fails(tmp_path, manual_clock):
    clock = Clock()
    clock.open(tmp_path, 0)
    with pytest.raises(ValueError), clock.phase("evaluation"):
        manual_clock.now += 1
        raise ValueError
    manual_clock.now += 2
    clock.note(1)
    clock.close()
    seconds = json.loads((tmp_path / FILE).read_text())["seconds"]
    assert (seconds["evaluation"], seconds["steps"]) == (1, 2)


def test_a_line_cut_off_by_a_kill_is_skipped(tmp_path):
    write(tmp_path, {"start": 1.0, "time": 2.0, "first_step": 0, "step": 9, "saved": 8,
                     "seconds": {"steps": 1.0}})  # fmt: skip
    with (tmp_path / FILE).open("a") as file:
        file.write('{"start": 1.0, "ti')
    assert account(tmp_path)["steps"] == 1.0 and last_saved(tmp_path) == 8


def test_without_a_file_there_is_no_account(tmp_path):
    assert account(tmp_path) == {} and last_saved(tmp_path) is None


def test_a_run_resumes_to_more_steps_and_accounts_for_all_of_its_starts(tmp_path, capsys):
    for steps in (6, 12):
        config = least(train={"steps": steps})
        assert train(config, tmp_path) is Outcome.FINISHED
        assert final_state(tmp_path, config).state.step == steps
    lines = [json.loads(line) for line in (tmp_path / FILE).read_text().splitlines()]
    found = account(tmp_path)
    assert found["lost"] == 0
    # Fetching the few batches may take less than a millisecond.
    assert all(found[name] > 0 for name in found.keys() - {"lost", "data_wait"})
    # The file has milliseconds.
    assert sum(found.values()) == pytest.approx(lines[-1]["time"] - lines[0]["start"], abs=0.02)
    assert f"time: {summary(tmp_path)}" in capsys.readouterr().err
