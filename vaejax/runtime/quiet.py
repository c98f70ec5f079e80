"""Keeps third parties' noise from the terminal while their errors go on to whoever waits for them.

A storage library that fails in its own threads reports each failure several times: as log lines,
as tracebacks of threads, and as complaints about coroutines that nobody awaited. The error itself
reaches the caller, who says it once.
"""

import gc
import inspect
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, NamedTuple

from vaejax.errors import is_out_of_reach, is_out_of_space, short_reason
from vaejax.runtime.streams import print_line

# Loggers of libraries that report what they also raise; "absl" is Orbax's.
_LOGGERS = ("absl", "asyncio")
# A thread that failed within one of these raises the same error in the caller's thread.
_REPORTED_AGAIN = ("orbax", "tensorstore")
_SETTLING_SECONDS = 0.5
# Its writer's thread is one that nobody waits for.
_BOARD = "tensorboardX"
# What an interpreter or event loop that goes away makes of what still runs in it.
_ENDINGS = ("Event loop is closed", "Python is likely shutting down", "interpreter shutdown")


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Within the block libraries' noise is not shown; afterwards everything is as before."""
    levels = {name: logging.getLogger(name).level for name in _LOGGERS}
    handlers = list(logging.root.handlers)
    unraisable, thread = sys.unraisablehook, threading.excepthook
    try:
        for name in _LOGGERS:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        sys.unraisablehook = _without(_is_orphan, unraisable)
        threading.excepthook = _in_a_thread(thread)
        yield
    finally:
        sys.unraisablehook, threading.excepthook = unraisable, thread
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        # absl gives the root logger a handler when it is first asked to log anything.
        for handler in set(logging.root.handlers) - set(handlers):
            logging.root.removeHandler(handler)


class Failure(NamedTuple):
    """What is left of an exception.

    Attributes:
      reason: in short.
      full: whether a full disk or a quota is behind it.
      away: whether storage out of reach is.
    """

    reason: str
    full: bool
    away: bool


def call_quietly(function: Callable[[], Any]) -> tuple[Any, Failure | None]:
    """What `function` returns, and why it failed; None if it did not.

    Its exception is let go of within: what it holds, such as coroutines that were left behind,
    would complain when it is collected, at a time when everybody can hear.
    """
    with quiet_libraries():
        try:
            return function(), None
        except Exception as error:
            failure = Failure(short_reason(error), is_out_of_space(error), is_out_of_reach(error))
        # Other reads of the same checkpoint are still under way, and find nobody to report to.
        time.sleep(_SETTLING_SECONDS)
        gc.collect()
    return None, failure


def board_lost(error: BaseException | None) -> str:
    """What is said where TensorBoard's library fails, whose file a run can do without."""
    reason = short_reason(error) if error else "unknown"
    return f"TensorBoard's file cannot be written any more ({reason}); metrics.jsonl goes on"


def _without(unwanted: Callable[[Any], bool], report: Callable[[Any], Any]) -> Callable:
    def filtered(complaint: Any) -> None:
        if not unwanted(complaint):
            report(complaint)

    return filtered


def _is_orphan(complaint: Any) -> bool:
    return inspect.iscoroutine(complaint.object) or any(
        ending in str(complaint.exc_value) for ending in _ENDINGS
    )


def _in_a_thread(report: Callable[[Any], Any]) -> Callable:
    def filtered(failure: threading.ExceptHookArgs) -> None:
        modules = _modules(failure.exc_traceback)
        if _BOARD in modules:
            print_line(board_lost(failure.exc_value))
        elif modules.isdisjoint(_REPORTED_AGAIN):
            report(failure)

    return filtered


def _modules(traceback: TracebackType | None) -> set[str]:
    """The packages that a traceback leads through."""
    found = set()
    while traceback:
        found.add(traceback.tb_frame.f_globals.get("__name__", "").partition(".")[0])
        traceback = traceback.tb_next
    return found
