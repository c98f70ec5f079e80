"""A process that makes no progress is ended, and prints the stack of each of its threads."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from commands import command
from tiny import CONFIG_FILE

from vaejax.runtime import watchdog
from vaejax.runtime.watchdog import Watchdog

HANG = """
import sys, threading
sys.path.insert(0, {tests!r})
from pathlib import Path
from tiny import least
from vaejax.training import loop
from vaejax.training.feeding import Feed

def batches_that_never_come(self, first_step):
    threading.Event().wait()
    yield

Feed.batches = batches_that_never_come
loop.train(least(train={{"hang_timeout": 2.0}}), Path(sys.argv[1]))
"""


def test_a_run_that_hangs_ends_with_the_stacks_of_all_threads(tmp_path):
    (tmp_path / "hang.py").write_text(HANG.format(tests=str(CONFIG_FILE.parent)))
    result = command("hang", str(tmp_path / "run"), cwd=tmp_path)
    assert result.returncode == 75, result.stderr
    assert "error: nothing has moved for 2 s (config.train.hang_timeout)" in result.stderr
    assert "batches_that_never_come" in result.stderr and "in _watch" in result.stderr
    assert "Run the same command to go on" in result.stderr


class ManualClock:
    """A clock in place of the module `time`, which counts how often it is read.

    Attributes:
      now: the time in seconds.
    """

    def __init__(self):
        self.now, self._reads = 0.0, threading.Semaphore(0)

    def monotonic(self) -> float:
        self._reads.release()
        return self.now

    def wait_for_reads(self, count: int) -> None:
        """Waits until the clock has been read `count` times more."""
        while self._reads.acquire(blocking=False):
            pass
        for _ in range(count):
            assert self._reads.acquire(timeout=60)


def test_each_report_extends_the_time_limit(monkeypatch):
    clock, ended = ManualClock(), threading.Event()
    monkeypatch.setattr(watchdog, "time", clock)
    monkeypatch.setattr(Watchdog, "_end", lambda self: ended.set())
    watched = Watchdog(0.1)
    with watched.watching():
        for clock.now in (0.09, 0.18, 0.27):
            watched.report()
        clock.wait_for_reads(6)
        assert not ended.is_set()
        clock.now = 0.5
        assert ended.wait(60)


def watching_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "watchdog"]


def test_a_watchdog_watches_within_its_block_only():
    watched = Watchdog(1e6)
    for _ in range(2):
        with watched.watching():
            assert len(watching_threads()) == 1
        assert not watching_threads()


def test_a_watchdog_without_a_time_limit_does_not_watch():
    with Watchdog(0.0).watching():
        assert not watching_threads()


@contextmanager
def tracing() -> Iterator[None]:
    """Traces this thread, as debuggers do."""
    before = sys.gettrace()
    sys.settrace(lambda *_: None)
    try:
        yield
    finally:
        sys.settrace(before)


@contextmanager
def monitoring() -> Iterator[None]:
    """Registers a debugger with `sys.monitoring`."""
    sys.monitoring.use_tool_id(sys.monitoring.DEBUGGER_ID, "debugger")
    try:
        yield
    finally:
        sys.monitoring.free_tool_id(sys.monitoring.DEBUGGER_ID)


# Python 3.11 lacks `sys.monitoring`.
@pytest.mark.parametrize(
    "debugger", [tracing, *([monitoring] if hasattr(sys, "monitoring") else [])]
)
def test_a_watchdog_does_not_watch_under_a_debugger(debugger):
    with debugger():
        watched = Watchdog(1e6)
    with watched.watching():
        assert not watching_threads()
