"""A request to stop, from Ctrl-C or from whoever runs the machine."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager


class Stop:
    """Whether somebody asked the run to stop."""

    requested = False


STOPPING = (signal.SIGINT, signal.SIGTERM)


def interrupt_on_signal() -> None:
    """Has SIGINT and SIGTERM raise KeyboardInterrupt, so that what is half done is cleaned up.

    SIGINT too: a shell that starts a job in the background has it ignored.
    """
    for number in STOPPING:
        signal.signal(number, signal.default_int_handler)


@contextmanager
def stop_on_signal() -> Iterator[Stop]:
    """Turns SIGINT and SIGTERM into a request; a second SIGINT interrupts as usual."""
    stop = Stop()

    def request(number: int, frame: object) -> None:
        if stop.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.requested = True
        # Not through sys.stderr: the signal may have come in the middle of a write to it.
        name = signal.Signals(number).name
        os.write(2, f"{name}: saving, then stopping; run the same command to go on\n".encode())

    before = {number: signal.signal(number, request) for number in STOPPING}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
