"""Signals that ask to stop: they interrupt a command, and only request a stop during training."""

import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from vaejax.runtime.signals import interrupt_on_signal, stop_on_signal

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def restored_handlers() -> Iterator[None]:
    """Restores the signal handlers of the tests, and the hook for dropped exceptions.

    Until a test sets other handlers, the signals do nothing: otherwise they would end pytest.
    """
    before, hook = handlers(), sys.unraisablehook
    for number in STOPPING:
        signal.signal(number, lambda *_: None)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
    sys.unraisablehook = hook


def handlers() -> dict:
    return {number: signal.getsignal(number) for number in STOPPING}


@pytest.mark.parametrize("number", STOPPING)
def test_a_signal_interrupts_a_command(number):
    interrupt_on_signal()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(number)


@pytest.mark.parametrize("number", STOPPING)
def test_a_signal_in_the_training_loop_requests_a_stop(number, capfd):
    interrupt_on_signal()
    before = handlers()
    with stop_on_signal() as stop:
        assert not stop.requested
        signal.raise_signal(number)
        assert stop.requested
    assert capfd.readouterr().err == (
        f"{number.name}: saving, then stopping; run the same command to go on\n"
    )
    assert handlers() == before


def test_only_a_sigint_after_a_requested_stop_interrupts_at_once():
    with stop_on_signal():
        try:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.raise_signal(number)
        except KeyboardInterrupt:
            pytest.fail("a first SIGINT, or a signal of another kind, has interrupted")
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_a_sighup_that_is_ignored_stays_ignored():
    """The command `nohup` ignores SIGHUP for the command that it starts."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    interrupt_on_signal()
    with stop_on_signal() as stop:
        signal.raise_signal(signal.SIGHUP)
        assert not stop.requested
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_an_interrupt_in_the_garbage_collector_is_not_lost():
    """Python drops exceptions from garbage collector callbacks, and JAX has such a callback."""
    script = """
import gc, os, signal, time
from vaejax.runtime.signals import interrupt_on_signal

def interrupt(phase, info):
    gc.callbacks.clear()
    os.kill(os.getpid(), signal.SIGTERM)

interrupt_on_signal()
gc.callbacks.append(interrupt)
gc.collect()
time.sleep(100)
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=60)
    assert result.returncode == -signal.SIGINT
    assert b"Exception ignored" not in result.stderr
