"""Handles the signals that ask to stop, from Ctrl-C or from the system."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

_SECONDS_UNTIL_RETRY = 0.1


class Stop:
    """A request to stop.

    Attributes:
      requested: whether a signal has asked the run to stop.
    """

    requested = False


def _stopping() -> list[signal.Signals]:
    """Returns the signals that ask to stop; not SIGHUP under `nohup`, which ignores it."""
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        return [signal.SIGINT, signal.SIGTERM]
    return [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


def interrupt_on_signal() -> None:
    """Makes SIGINT, SIGTERM and SIGHUP raise KeyboardInterrupt, so that work is cleaned up.

    SIGINT is set too, because a shell that starts a job in the background has it ignored.
    """
    for number in _stopping():
        signal.signal(number, signal.default_int_handler)
    _retry_dropped_interrupts()


def _retry_dropped_interrupts() -> None:
    """Makes an interrupt that Python drops occur again, a little later.

    Python drops, and only reports, exceptions that are raised in destructors and in callbacks of
    its garbage collector, and JAX has such a callback.
    """
    report = sys.unraisablehook

    def retry_or_report(dropped: "UnraisableHookArgs") -> None:
        if not issubclass(dropped.exc_type, KeyboardInterrupt):
            report(dropped)
            return
        # Later: an interrupt that is raised in this hook would be dropped as well.
        retry = threading.Timer(_SECONDS_UNTIL_RETRY, os.kill, (os.getpid(), signal.SIGINT))
        retry.daemon = True
        retry.start()

    sys.unraisablehook = retry_or_report


@contextmanager
def stop_on_signal() -> Iterator[Stop]:
    """Turns SIGINT, SIGTERM and SIGHUP in the block into a request to stop, which it yields.

    A SIGINT after that raises KeyboardInterrupt as usual.
    """
    stop = Stop()

    def request(number: int, frame: object) -> None:
        if stop.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.requested = True
        # Not through sys.stderr: the signal may have come in the middle of a write to it.
        name = signal.Signals(number).name
        with suppress(OSError):  # its terminal may be closed
            os.write(2, f"{name}: saving, then stopping; run the same command to go on\n".encode())

    before = {number: signal.signal(number, request) for number in _stopping()}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
