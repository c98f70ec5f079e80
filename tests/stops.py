"""Signals that ask a run in this process to stop."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from vaejax.records import progress


@contextmanager
def stopping_at(step: int) -> Iterator[None]:
    """Sends SIGTERM, once, when the run has made its update `step`."""
    advance, sent = progress.Training.advance, []

    def stopping(self: progress.Training, at: int) -> None:
        advance(self, at)
        if at >= step and not sent:
            sent.append(at)
            os.kill(os.getpid(), signal.SIGTERM)

    with mock.patch.object(progress.Training, "advance", stopping):
        yield
