"""Standard streams that are closed, or that nobody reads any more: work goes on without them."""

import os
import sys


def open_closed_streams() -> None:
    """Opens those that the caller closed, on the null device.

    Else a file that is opened later takes the number of a closed one, and libraries print into it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            _discard(number)
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))


def print_error(line: str) -> None:
    """Prints a line on stderr; where that fails, stderr is the null device from then on."""
    try:
        print(line, file=sys.stderr, flush=True)
    except OSError:
        # A closed terminal, a pipe whose reader has ended, a log on a full disk.
        _discard(sys.stderr.fileno())


def flush() -> None:
    """Flushes stdout and stderr; what cannot be written is dropped."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            _discard(stream.fileno())


def _discard(number: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    if null != number:
        os.dup2(null, number)
        os.close(null)
