"""Writes to the standard streams; where they cannot be written, work goes on without output."""

import os
import sys
import traceback

from vaejax.errors import one_line


def open_closed_streams() -> None:
    """Opens standard streams that the caller closed, on the null device.

    Otherwise a file that is opened later gets the file descriptor of a closed stream, and libraries
    print into it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            _discard(number)
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))


def print_line(line: str) -> None:
    """Prints a line on stderr; if that fails, stderr is the null device from then on."""
    try:
        print(line, file=sys.stderr, flush=True)
    except OSError:
        # A closed terminal, a pipe whose reader has ended, a log on a full disk.
        _discard(sys.stderr.fileno())


def print_error(message: str) -> None:
    """Prints an error message on stderr as one line that begins with `error: `."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    print_line("error: " + " ".join(lines))


def report_error(error: BaseException) -> int:
    """Prints an error, as one line or with its traceback, and returns the exit status."""
    message, status = one_line(error) or ("", 1)
    if message:
        print_error(message)
    else:
        traceback.print_exception(error)
    return status


def flush() -> None:
    """Flushes stdout and stderr; output that cannot be written is dropped."""
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
