"""Tests that the output of libraries is hidden, errors are not, and global state is kept."""

import logging
import subprocess
import sys
import threading

import pytest

from vaejax.runtime.quiet import call_quietly, quiet_libraries

STATE = """
import logging, os, sys, threading
import jax

def state():
    root = logging.getLogger()
    names = ("absl", "asyncio", "jax", "orbax")
    return {
        "levels": [root.level, *(logging.getLogger(name).level for name in names)],
        "handlers": list(root.handlers),
        "hooks": (sys.excepthook, sys.unraisablehook, threading.excepthook),
        "environment": dict(os.environ),
        "cache": jax.config.jax_compilation_cache_dir,
    }

before = state()
import vaejax
model = vaejax.load(sys.argv[1])
assert model.sample(2).shape == (2, 28, 28, 3)
try:
    vaejax.load(sys.argv[1], checkpoint=7)
except Exception as error:
    assert "is not one of best" in str(error)
changed = {name: (before[name], value) for name, value in state().items() if value != before[name]}
assert not changed, changed
"""


@pytest.mark.slow
def test_loading_a_model_changes_no_global_state_and_prints_nothing(trained, monkeypatch):
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    done = subprocess.run(
        [sys.executable, "-c", STATE, str(trained)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.parametrize(("module", "reported"), [("__main__", True), ("orbax.example", False)])
def test_only_failures_of_storage_threads_are_hidden(module, reported, monkeypatch):
    """A thread has failed in a module of Orbax if its traceback passes through one."""
    failures: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", failures.append)
    names = {"__name__": module}
    exec("def fail(): raise ZeroDivisionError", names)
    with quiet_libraries():
        thread = threading.Thread(target=names["fail"])
        thread.start()
        thread.join()
    assert [failure.exc_type for failure in failures] == [ZeroDivisionError] * reported


def test_a_quiet_call_returns_its_result_or_the_reason_of_its_failure():
    assert call_quietly(lambda: 3) == (3, None)
    result, failure = call_quietly(lambda: 1 / 0)
    assert result is None
    assert failure == ("ZeroDivisionError: division by zero", False, False)


def test_log_levels_and_handlers_are_restored_after_an_error():
    level, handlers = logging.getLogger("absl").level, list(logging.root.handlers)
    with pytest.raises(KeyError), quiet_libraries():
        assert logging.getLogger("absl").level == logging.CRITICAL
        raise KeyError
    assert logging.getLogger("absl").level == level
    assert logging.root.handlers == handlers


def test_overlapping_blocks_restore_the_state_before_the_first():
    """The block that began first ends first: what it restores is not what the other began with."""
    state = lambda: (logging.getLogger("absl").level, sys.unraisablehook, threading.excepthook)  # noqa: E731
    before, first, second = state(), quiet_libraries(), quiet_libraries()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert logging.getLogger("absl").level == logging.CRITICAL
    second.__exit__(None, None, None)
    assert state() == before


def test_errors_stay_hidden_where_signals_interrupt():
    script = """
from vaejax.runtime.quiet import quiet_libraries
from vaejax.runtime.signals import interrupt_on_signal

class Failing:
    def __init__(self, error):
        self.error = error

    def __del__(self):
        raise self.error

with quiet_libraries():
    interrupt_on_signal()
    Failing(RuntimeError("Event loop is closed"))
    Failing(RuntimeError("something else"))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0
    assert "something else" in done.stderr and "Event loop" not in done.stderr
