"""Progress of long work: a bar with rate and time left on a terminal, plain lines in a log."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import jax
from tqdm import tqdm

from vaejax.records.goodput import Clock
from vaejax.runtime.streams import print_line

_SECONDS_BETWEEN_LINES = 15.0


_silent = False


def silence() -> None:
    """Turns all output of this module off: of several processes, only one reports."""
    global _silent
    _silent = True


def say(line: str) -> None:
    """Prints one line for the user on stderr, without breaking a progress bar."""
    if not _silent:
        with tqdm.external_write_mode(file=sys.stderr):
            print_line(line)


@contextmanager
def counting(doing: str, total: int, shown: bool = True) -> Iterator[Callable[[int], None]]:
    """Shows the progress of work on pictures.

    Args:
      doing: what is done to the pictures, as in "preparing".
      total: number of pictures.
      shown: whether to show anything.

    Yields:
      A function to call with the number of pictures just done.
    """
    if not shown or _silent:
        yield lambda count: None
    elif sys.stderr.isatty():
        with tqdm(total=total, unit=" pictures", desc=f"{doing} pictures") as bar:
            yield bar.update
    else:
        yield _Lines(doing, total)


class _Lines:
    def __init__(self, doing: str, total: int):
        self._doing, self._total = doing, total
        self._done = 0
        self._start = self._last = time.monotonic()
        say(f"{doing} {total:,} pictures")

    def __call__(self, count: int) -> None:
        self._done += count
        now = time.monotonic()
        if now - self._last < _SECONDS_BETWEEN_LINES and self._done < self._total:
            return
        self._last = now
        rate = self._done / max(now - self._start, 1e-3)
        left = (self._total - self._done) / max(rate, 1e-3)
        say(
            f"{self._doing}: {self._done:,} of {self._total:,} pictures,"
            f" {rate:,.0f} a second, {_clock(left)} left"
        )


class Training:
    """Progress of training: a bar with rate and time left on a terminal, plain lines elsewhere.

    The rate counts pictures since the last `restart_clock`, so that compilation, evaluation and
    saving do not lower it.
    """

    def __init__(self, first: int, total: int, batch_size: int, clock: Clock):
        """Shows the bar, if stderr is a terminal.

        Args:
          first: number of updates before this start.
          total: number of updates at the end of the run.
          batch_size: pictures in one update, over all devices.
          clock: counts the seconds in which devices wait for batches as `data_wait`.
        """
        self._total, self._batch_size, self._clock = total, batch_size, clock
        self._step = self._mark_step = first
        self._mark, self._waited = time.monotonic(), 0.0
        self._bar = None
        if sys.stderr.isatty() and not _silent:
            self._bar = tqdm(total=total, initial=first, unit="step", dynamic_ncols=True)

    def advance(self, step: int) -> None:
        """Sets the number of updates so far to `step`."""
        if self._bar:
            self._bar.update(step - self._step)
        self._step = step

    def restart_clock(self) -> None:
        """Leaves the time until now (compilation, evaluation, saving) out of the rate."""
        self._mark, self._mark_step, self._waited = time.monotonic(), self._step, 0.0

    @contextmanager
    def waiting(self, queued: jax.Array | None) -> Iterator[None]:
        """Measures how long the devices wait for the batch that the block fetches.

        The time does not count if they are still computing when the batch is there.

        Args:
          queued: a result of what the devices compute meanwhile; None if they are idle.
        """
        start = time.monotonic()
        yield
        # JAX's type stub of arrays lacks `is_ready`.
        if queued is None or queued.is_ready():  # type: ignore[attr-defined]
            seconds = time.monotonic() - start
            self._waited += seconds
            self._clock.move(seconds, "data_wait")

    def data_wait(self) -> float:
        """Returns the share (0 to 1) of the time since `restart_clock` spent waiting for batches.

        It is an upper bound: a wait that ended with idle devices counts as a whole.
        """
        return self._waited / max(time.monotonic() - self._mark, 1e-9)

    def images_per_second(self) -> float | None:
        """Returns training pictures per second since `restart_clock`; None without a step since."""
        steps, elapsed = self._step - self._mark_step, time.monotonic() - self._mark
        return steps * self._batch_size / max(elapsed, 1e-9) if steps else None

    def line(self, short: str, rate: float | None) -> None:
        """Shows the metrics of the last window.

        Args:
          short: the metrics in words.
          rate: pictures per second, if known.
        """
        speed = [f"{rate:.0f} images/s"] if rate else []
        if self._bar:
            self._bar.set_postfix_str("  ".join([*speed, short]))
        else:
            if rate:
                speed.append(f"{_clock((self._total - self._step) * self._batch_size / rate)} left")
            say("  ".join([f"step {self._step}/{self._total}", short, *speed]))

    def close(self) -> None:
        """Closes the bar, so that the next line of output does not overwrite it."""
        if self._bar:
            self._bar.close()


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
