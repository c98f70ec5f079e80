"""Ends a process that makes no more progress, and prints the stack of each of its threads."""

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
    """Watches a loop that reports each of its steps.

    A collective whose peer is gone, or storage that hangs, would otherwise block forever.
    """

    def __init__(self, seconds: float):
        """Starts nothing yet: `watching` does.

        Args:
          seconds: time without a report after which the process is ended; 0 for never. With a
            debugger attached it is never ended.
        """
        self._seconds = 0.0 if _debugged() else seconds
        self._last, self._over = time.monotonic(), threading.Event()

    def report(self) -> None:
        """Reports progress, from which the time limit counts anew."""
        self._last = time.monotonic()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watches the block; may be used several times, one after another."""
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
        # The main thread may never return, so no orderly exit is possible.
        os._exit(TRY_AGAIN)


def _debugged() -> bool:
    """Whether a debugger is attached, by tracing or by `sys.monitoring` (Python 3.12 and newer)."""
    if sys.gettrace() is not None or "pydevd" in sys.modules:
        return True
    monitoring = getattr(sys, "monitoring", None)
    return monitoring is not None and monitoring.get_tool(monitoring.DEBUGGER_ID) is not None
