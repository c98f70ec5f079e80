"""A command that is run many times in one process, where a process for each would take seconds."""

import json
import os
import pathlib
import runpy
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Sequence

from absl import flags

from vaejax.cli import entry

_OF_ABSL = set(flags.FLAGS)


class Repeated:
    """`python -m vaejax.MODULE`, again and again; to be closed by `with`."""

    def __init__(self, module: str, cwd: pathlib.Path | None = None):
        """Starts the process.

        Args:
          module: which command.
          cwd: where it runs.
        """
        self._process = subprocess.Popen(
            [sys.executable, __file__, module],
            cwd=cwd,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # For other pages of memory the process would begin anew, and lose its input.
            env={**os.environ, "GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"},
        )

    def __enter__(self) -> "Repeated":
        self._process.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._process.__exit__(*error)
        assert self._process.returncode == 0

    def __call__(self, *words: str) -> subprocess.CompletedProcess:
        """Runs the command once; what it prints is all in `stderr`."""
        print(json.dumps(words), file=self._process.stdin, flush=True)
        status, printed = json.loads(self._process.stdout.readline())
        return subprocess.CompletedProcess(words, status, "", printed)


def _answer(module: str) -> None:
    """Reads command lines, one JSON list a line, and writes for each its status and output."""
    answers = os.fdopen(os.dup(1), "w")
    # A command ends without the interpreter's own end.
    entry._end = sys.exit
    for line in sys.stdin:
        with tempfile.TemporaryFile() as printed:
            # Also what C libraries print.
            for stream in (1, 2):
                os.dup2(printed.fileno(), stream)
            status = _status(module, json.loads(line))
            sys.stdout.flush()
            sys.stderr.flush()
            printed.seek(0)
            text = printed.read().decode(errors="replace")
        print(json.dumps([status, text]), file=answers, flush=True)


def _status(module: str, words: Sequence[str]) -> int:
    for name in set(flags.FLAGS) - _OF_ABSL:
        delattr(flags.FLAGS, name)
    sys.argv = [module, *words]
    try:
        runpy.run_module(f"vaejax.{module}", run_name="__main__")
    except SystemExit as end:
        return end.code or 0
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    _answer(sys.argv[1])
