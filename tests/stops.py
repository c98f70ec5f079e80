"""Stops training with SIGTERM: a run in this process, or a command."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from commands import start
from waiting import finish, read_until

from vaejax.records import progress


@contextmanager
def stopping_at(step: int) -> Iterator[None]:
    """Sends SIGTERM to this process, once, after the run has made `step` updates or more."""
    advance, sent = progress.Training.advance, []

    def stopping(self: progress.Training, at: int) -> None:
        advance(self, at)
        if at >= step and not sent:
            sent.append(at)
            os.kill(os.getpid(), signal.SIGTERM)

    with mock.patch.object(progress.Training, "advance", stopping):
        yield


def stopped_at(line: str, module: str, *flags: str) -> subprocess.CompletedProcess:
    """Runs `python -m vaejax.MODULE`; sends SIGTERM once a line on stderr contains `line`."""
    process = start(module, *flags)
    errors = read_until(process, line)
    process.send_signal(signal.SIGTERM)
    errors += finish(process)
    return subprocess.CompletedProcess(process.args, process.returncode, stderr=errors)
