"""A request to stop, from Ctrl-C or from whoever runs the machine."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from vaejax.progress import say


class Stop:
    """Whether somebody asked the run to stop."""

    requested = False


@contextmanager
def stop_on_signal() -> Iterator[Stop]:
    """Turns SIGINT and SIGTERM into a request; a second SIGINT interrupts as usual."""
    stop = Stop()

    def request(number: int, frame: object) -> None:
        if stop.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.requested = True
        say(f"{signal.Signals(number).name}: saving, then stopping; run the same command to go on")

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, request) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
