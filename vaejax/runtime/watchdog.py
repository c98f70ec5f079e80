"""Ends a process in which nothing moves any more, and shows where each of its threads stands."""

import faulthandler
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from vaejax.errors import TRY_AGAIN
from vaejax.runtime.streams import print_line


class Watchdog:
    """Watches over a loop that reports each of its steps.

    A collective whose peer is gone, or storage that hangs, would otherwise wait for ever.
    """

    def __init__(self, seconds: float):
        """Waits for `watching`.

        Args:
          seconds: without a report after which the process ends; 0 for never. Where a debugger is
            attached it never does.
        """
        self._seconds = 0.0 if _debugged() else seconds
        self._last, self._over = time.monotonic(), threading.Event()

    def report(self) -> None:
        """Something has moved."""
        self._last = time.monotonic()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Around what is watched; many may follow each other."""
        if not self._seconds:
            yield
            return
        self.report()
        self._over.clear()
        thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()

    def _watch(self) -> None:
        while not self._over.wait(max(0.01, self._last + self._seconds - time.monotonic())):
            if time.monotonic() - self._last >= self._seconds:
                self._end()

    def _end(self) -> None:
        print_line(
            f"\nerror: nothing has moved for {self._seconds:.0f} s "
            "(config.train.hang_timeout); where each thread stands follows. Run the same command "
            "to go on from the newest checkpoint"
        )
        if sys.__stderr__ is not None:
            faulthandler.dump_traceback(file=sys.__stderr__, all_threads=True)
        # The main thread may never come back, and with it no other way to end.
        os._exit(TRY_AGAIN)


def _debugged() -> bool:
    """Whether a debugger is attached: one that traces, or monitors (Python 3.12 and newer)."""
    if sys.gettrace() is not None or "pydevd" in sys.modules:
        return True
    monitoring = getattr(sys, "monitoring", None)
    return monitoring is not None and monitoring.get_tool(monitoring.DEBUGGER_ID) is not None
