"""Progress of a build: a bar on a terminal, a plain line now and then in a log."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

_SECONDS_BETWEEN_LINES = 15.0


def say(line: str) -> None:
    """One line for the person at the other end, on stderr."""
    print(f"vaejax: {line}", file=sys.stderr, flush=True)


@contextmanager
def progress(total: int, shown: bool) -> Iterator[Callable[[int], None]]:
    """Yields a function to call with the number of pictures just done."""
    if not shown:
        yield lambda count: None
    elif sys.stderr.isatty():
        with tqdm(total=total, unit=" pictures", desc="preparing pictures") as bar:
            yield bar.update
    else:
        yield _Lines(total)


class _Lines:
    def __init__(self, total: int):
        self._total = total
        self._done = 0
        self._start = self._last = time.monotonic()

    def __call__(self, count: int) -> None:
        self._done += count
        now = time.monotonic()
        if now - self._last < _SECONDS_BETWEEN_LINES and self._done < self._total:
            return
        self._last = now
        rate = self._done / max(now - self._start, 1e-3)
        left = (self._total - self._done) / max(rate, 1e-3)
        say(
            f"prepared {self._done:,} of {self._total:,} pictures,"
            f" {rate:,.0f} a second, {left:,.0f} s left"
        )
