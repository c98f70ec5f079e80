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
    """From here on nothing is shown: of several processes, one speaks for all."""
    global _silent
    _silent = True


def say(line: str) -> None:
    """One line for the person at the other end, on stderr; never into the middle of a bar."""
    if not _silent:
        with tqdm.external_write_mode(file=sys.stderr):
            print_line(line)


@contextmanager
def counting(doing: str, total: int, shown: bool = True) -> Iterator[Callable[[int], None]]:
    """Yields a function to call with the number of pictures just done.

    Args:
      doing: what is done to them, as in "preparing".
      total: how many there are.
      shown: whether to show anything.
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
    """A bar with rate and time left on a terminal, plain lines anywhere else.

    The rate counts pictures since the first step after the start was done, so that
    compilation does not spoil it.
    """

    def __init__(self, first: int, total: int, batch_size: int, clock: Clock):
        """Starts at step `first` of `total`; `clock` hears of the waits."""
        self._total, self._batch_size, self._clock = total, batch_size, clock
        self._step = self._mark_step = first
        self._mark, self._waited = time.monotonic(), 0.0
        self._bar = None
        if sys.stderr.isatty() and not _silent:
            self._bar = tqdm(total=total, initial=first, unit="step", dynamic_ncols=True)

    def advance(self, step: int) -> None:
        """Moves to `step`."""
        if self._bar:
            self._bar.update(step - self._step)
        self._step = step

    def restart_clock(self) -> None:
        """Leaves what happened until now (compilation, evaluation, saving) out of the rate."""
        self._mark, self._mark_step, self._waited = time.monotonic(), self._step, 0.0

    @contextmanager
    def waiting(self, queued: jax.Array | None) -> Iterator[None]:
        """Around the next batch, for which nobody waits as long as the devices have work.

        Args:
          queued: what they are computing meanwhile, if anything.
        """
        start = time.monotonic()
        yield
        # JAX's stub of its arrays leaves `is_ready` out.
        if queued is None or queued.is_ready():  # type: ignore[attr-defined]
            seconds = time.monotonic() - start
            self._waited += seconds
            self._clock.move(seconds, "data_wait")

    def data_wait(self) -> float:
        """Share of the time since the clock was restarted that devices waited for batches.

        An upper bound: of each wait that ended with idle devices, the whole.
        """
        return self._waited / max(time.monotonic() - self._mark, 1e-9)

    def images_per_second(self) -> float | None:
        """Training pictures a second since the clock was restarted; None without a step since."""
        steps, elapsed = self._step - self._mark_step, time.monotonic() - self._mark
        return steps * self._batch_size / max(elapsed, 1e-9) if steps else None

    def line(self, short: str, rate: float | None) -> None:
        """Shows the training metrics of the last window in words, and its rate if there is one."""
        speed = [f"{rate:.0f} images/s"] if rate else []
        if self._bar:
            self._bar.set_postfix_str("  ".join([*speed, short]))
        else:
            if rate:
                speed.append(f"{_clock((self._total - self._step) * self._batch_size / rate)} left")
            say("  ".join([f"step {self._step}/{self._total}", short, *speed]))

    def close(self) -> None:
        """Leaves the terminal in order."""
        if self._bar:
            self._bar.close()


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
