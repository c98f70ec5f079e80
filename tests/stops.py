"""Stops a training run in this process with a signal."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

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
