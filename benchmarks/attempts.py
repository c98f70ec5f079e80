"""Starts the training command, to be killed, and mounts small disks to start it on."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from benchmarks.runs import command
from benchmarks.same_run import Place
from vaejax.errors import UserError

# Seconds after which an attempt counts as hung; a whole run takes about a minute.
LIMIT = 600.0
# Seconds between two polls of a process.
_BETWEEN_LOOKS = 0.01


class Broken(Exception):
    """A run did what it must not: it hung, ended wrongly, or left something else."""


class Attempt:
    """A process group that trains and writes its output to a file."""

    def __init__(self, place: Place, overrides: list[str], words: Path):
        """Starts the training command.

        Args:
          place: the directories of the run.
          overrides: settings to change, such as `train.steps=200`.
          words: the file for its standard output and error.
        """
        self.place, self._words = place, words
        self._end = time.monotonic() + LIMIT
        places = {
            "XDG_CACHE_HOME": str(place.cache),
            "JAX_COMPILATION_CACHE_DIR": str(place.programs),
        }
        with words.open("w") as file:
            self._process = subprocess.Popen(
                command(place.workdir, *overrides),
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**os.environ, **places},
                start_new_session=True,
            )

    def words(self) -> str:
        """Returns its output so far."""
        return self._words.read_text()

    def goes_on_until(self, reached: Callable[["Attempt"], bool]) -> bool:
        """Waits until `reached` holds; False if the attempt ended before.

        Raises:
          Broken: neither happened within `LIMIT` seconds of the start.
        """
        while self._process.poll() is None:
            if reached(self):
                return True
            if time.monotonic() > self._end:
                raise Broken(f"it hung for {LIMIT:.0f} s")
            time.sleep(_BETWEEN_LOOKS)
        return False

    def wait(self, seconds: float) -> None:
        """Waits for so many seconds, or until it ends."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)

    def ask_to_stop(self) -> None:
        """Sends SIGTERM, as happens on a machine that is about to be preempted."""
        self._process.terminate()

    def kill(self) -> None:
        """Sends SIGKILL to all its processes, and waits for its end."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def status(self) -> int:
        """Waits for its end and returns its exit status, negative if a signal ended it.

        Raises:
          Broken: it did not end within `LIMIT` seconds of the start.
        """
        self.goes_on_until(lambda _: False)
        return self._process.returncode


@contextmanager
def attempt(place: Place, overrides: list[str], words: Path) -> Iterator[Attempt]:
    """Starts an `Attempt` and yields it; kills it at the end of the block if it still runs."""
    started = Attempt(place, overrides, words)
    try:
        yield started
    finally:
        started.kill()


@contextmanager
def small_disk(path: Path, size: int) -> Iterator[Callable[[int], None]]:
    """Mounts a file system of `size` bytes at `path`; yields a function that resizes it.

    Raises:
      UserError: this user may not mount one here.
    """
    path.mkdir(parents=True, exist_ok=True)

    def mount(options: str) -> None:
        line = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)]
        try:
            subprocess.run(line, check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError) as error:
            reason = getattr(error, "stderr", "") or str(error)
            raise UserError(
                f"no small disk can be mounted ({reason.strip()}); on Linux be root, or start this "
                "with `unshare --map-root-user --mount`"
            ) from error

    mount(f"size={size}")
    try:
        yield lambda size: mount(f"remount,size={size}")
    finally:
        subprocess.run(["umount", str(path)], check=True)


def why_no_mount(path: Path) -> str:
    """Returns why this user may not mount a small disk at `path`; empty if they may."""
    try:
        with small_disk(path, 4096):
            return ""
    except UserError as error:
        return str(error)
