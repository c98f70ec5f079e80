"""Waits for what a process that a test has started prints on stderr or writes to a file."""

import pathlib
import subprocess
import time
from collections.abc import Sequence

from commands import COMMAND_TIMEOUT
from forked import Forked

Process = subprocess.Popen | Forked


def read_until(process: Process, words: str) -> str:
    """Reads the stderr of a process up to a line that contains `words`; returns what was read.

    Fails if the process ends before.
    """
    lines = []
    for line in process.stderr:
        lines.append(line)
        if words in line:
            return "".join(lines)
    raise AssertionError(f"the process ended before it printed {words!r}: {''.join(lines)}")


def finish(process: Process) -> str:
    """Waits until the process has ended; returns what was not yet read of its stderr.

    `communicate` alone would lose what `read_until` has read ahead.
    """
    rest = process.stderr.read()
    process.communicate(timeout=COMMAND_TIMEOUT)
    return rest


def wait_for_file(
    path: pathlib.Path, words: str = "", *, changed_from: str = "", by: Sequence[Process] = ()
) -> None:
    """Waits until a file exists, contains `words`, and has changed.

    Args:
      path: the file.
      words: what it must contain.
      changed_from: an earlier content, which it must not have any more; empty for any content.
      by: the processes that write it; if one of them ends before, the test fails.
    """
    deadline = time.monotonic() + COMMAND_TIMEOUT
    while not _is_written(path, words, changed_from):
        assert time.monotonic() < deadline, f"{path} lacks {words!r}"
        for process in by:
            if process.poll() is not None:
                raise AssertionError(
                    f"a process ended before {path} was written: {finish(process)}"
                )
        time.sleep(0.02)


def _is_written(path: pathlib.Path, words: str, changed_from: str) -> bool:
    if not path.exists():
        return False
    content = path.read_text()
    return words in content and (not changed_from or content != changed_from)
