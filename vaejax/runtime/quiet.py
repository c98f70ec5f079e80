"""Hides the output of libraries from the terminal, while their exceptions still reach the caller.

A storage library that fails in its own threads reports each failure several times: as log lines,
as tracebacks of threads, and as warnings about coroutines that were never awaited. The exception
itself reaches the caller, who reports it once.
"""

import gc
import inspect
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any, NamedTuple

from vaejax.errors import is_out_of_memory, is_out_of_reach, is_out_of_space, short_reason
from vaejax.runtime.streams import print_line

# Loggers of libraries that report what they also raise; "absl" is Orbax's.
_LOGGERS = ("absl", "asyncio")
# A thread that fails within one of these has its error raised again in the caller's thread.
_REPORTED_AGAIN = ("orbax", "tensorstore")
_SETTLING_SECONDS = 0.5
# No thread waits for its writer thread, so the error of that is reported here.
_BOARD = "tensorboardX"
# Errors of work that still runs when the interpreter or its event loop shuts down.
_ENDINGS = ("Event loop is closed", "Python is likely shutting down", "interpreter shutdown")


# Blocks of several threads may overlap: the first hides the output, and the last restores it.
_lock, _restores = threading.Lock(), ExitStack()
_blocks = 0


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Hides the log lines and tracebacks of libraries within the block; then restores all hooks."""
    global _blocks
    with _lock:
        if not _blocks:
            _restores.enter_context(_hidden())
        _blocks += 1
    try:
        yield
    finally:
        with _lock:
            _blocks -= 1
            if not _blocks:
                _restores.close()


@contextmanager
def _hidden() -> Iterator[None]:
    levels = {name: logging.getLogger(name).level for name in _LOGGERS}
    handlers = list(logging.root.handlers)
    unraisable, thread = sys.unraisablehook, threading.excepthook
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    sys.unraisablehook = _without(_is_orphan, unraisable)
    threading.excepthook = _in_a_thread(thread)
    try:
        yield
    finally:
        sys.unraisablehook, threading.excepthook = unraisable, thread
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        # absl adds a handler to the root logger when it first logs anything.
        for handler in set(logging.root.handlers) - set(handlers):
            logging.root.removeHandler(handler)


class Failure(NamedTuple):
    """What is kept of an exception.

    Attributes:
      reason: the exception in at most one short line.
      full: whether a full disk or a quota caused it.
      away: whether storage that is out of reach, or a permission, caused it.
    """

    reason: str
    full: bool
    away: bool


def call_quietly(function: Callable[[], Any]) -> tuple[Any, Failure | None]:
    """Calls a function within `quiet_libraries`.

    An exception is released within, too: objects that it holds, such as coroutines that were never
    awaited, warn when they are collected, which would be visible later.

    Returns:
      The result, and why the call failed: None if it did not.
    """
    with quiet_libraries():
        try:
            return function(), None
        except Exception as error:
            if is_out_of_memory(error):
                raise
            failure = Failure(short_reason(error), is_out_of_space(error), is_out_of_reach(error))
        # Other reads of the same checkpoint still run, and fail without a caller to report to.
        time.sleep(_SETTLING_SECONDS)
        gc.collect()
    return None, failure


def board_lost(error: BaseException | None) -> str:
    """Returns the message for a failure of TensorBoard's library, which does not end a run."""
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
    """Returns the top-level packages that a traceback passes through."""
    found = set()
    while traceback:
        found.add(traceback.tb_frame.f_globals.get("__name__", "").partition(".")[0])
        traceback = traceback.tb_next
    return found
