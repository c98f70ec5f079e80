"""Records what a run's time is spent on, over all of its starts, in `goodput.jsonl`."""

import itertools
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from vaejax.files.atomic import naming
from vaejax.files.strict_json import dumps

# A line of the file holds the seconds of each phase since its start. Importing the libraries comes
# before all phases and is not counted.
PHASES = ("start", "compile", "steps", "data_wait", "evaluation", "checkpoints")
FILE = "goodput.jsonl"


class Clock:
    """Measures the time of one start of a run by phase; of nested phases the inner one counts."""

    def __init__(self) -> None:
        """Starts in the phase `start`."""
        self._since, self._mark, self._phase = time.time(), time.monotonic(), "start"
        self._seconds = dict.fromkeys(PHASES, 0.0)
        self._file: TextIO | None = None
        self._first = self._saved = 0

    def open(self, workdir: Path, first_step: int) -> None:
        """Ends the phase `start`; from here on `note` appends to the file.

        Args:
          workdir: work directory of the run, which holds the file.
          first_step: the step at which this start begins.
        """
        self._enter("steps")
        self._file, self._first = (workdir / FILE).open("a"), first_step
        self._saved = first_step

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Counts the time of the block as the phase `name`, one of `PHASES`."""
        outer = self._enter(name)
        try:
            yield
        finally:
            self._enter(outer)

    def move(self, seconds: float, to: str) -> None:
        """Moves seconds from the phase `steps` to the phase `to`."""
        self._seconds["steps"] -= seconds
        self._seconds[to] += seconds

    def note(self, step: int, saved: int | None = None) -> None:
        """Appends a line for `step`; called often, because a process may end at any time.

        Args:
          step: number of updates so far.
          saved: step of the newest checkpoint that is on disk; by default as in the last call.
        """
        self._enter(self._phase)
        self._saved = self._saved if saved is None else saved
        if self._file:
            line = {
                "start": self._since,
                "time": time.time(),
                "first_step": self._first,
                "step": step,
                "saved": self._saved,
                "seconds": {name: round(value, 3) for name, value in self._seconds.items()},
            }
            with naming(Path(self._file.name)):
                self._file.write(dumps(line) + "\n")
                self._file.flush()

    def close(self) -> None:
        """Closes the file, if it was opened."""
        if self._file:
            self._file.close()

    def _enter(self, name: str) -> str:
        """Leaves the current phase for `name`, and returns the one that it left."""
        now = time.monotonic()
        self._seconds[self._phase] += now - self._mark
        outer, self._phase, self._mark = self._phase, name, now
        return outer


def account(workdir: Path) -> dict[str, float]:
    """Returns the seconds of a whole run by phase; empty if nothing was recorded.

    Two phases are added to `PHASES`: `lost`, for steps that were repeated because a start ended
    before it saved them, which are not counted as `steps`; and `between`, from the end of one start
    to the beginning of the next, as far as the file shows the end.
    """
    starts = _last_lines(workdir / FILE)
    total = dict.fromkeys((*PHASES, "lost", "between"), 0.0) if starts else {}
    for line in starts:
        for name in PHASES:
            total[name] += line["seconds"][name]
    for line, following in itertools.pairwise(starts):
        total["between"] += max(0.0, following["start"] - line["time"])
        again = max(0, line["step"] - max(following["first_step"], line["first_step"]))
        made = max(1, line["step"] - line["first_step"])
        lost = line["seconds"]["steps"] * again / made
        total["lost"] += lost
        total["steps"] -= lost
    return total


def last_saved(workdir: Path) -> int | None:
    """Returns the step of the newest checkpoint by the last line that has it; else None."""
    lines = [line for line in _last_lines(workdir / FILE) if "saved" in line]
    return lines[-1]["saved"] if lines else None


def summary(workdir: Path) -> str:
    """Returns one line of text: the percentages of the time that went into steps and elsewhere."""
    seconds = account(workdir)
    everything = max(sum(seconds.values()), 1e-9)
    shares = {name: 100 * value / everything for name, value in seconds.items()}
    rest = ", ".join(
        f"{name.replace('_', ' ')} {share:.1f}%"
        for name, share in shares.items()
        if name != "steps" and share >= 0.05
    )
    return f"of {everything:,.0f} s {shares.get('steps', 0.0):.1f}% went into steps; {rest}"


def _last_lines(path: Path) -> list[dict]:
    """Returns the last line of each start, except lines that were cut off by a kill."""
    lines: dict[float, dict] = {}
    for text in path.read_text(errors="replace").splitlines() if path.is_file() else []:
        try:
            line = json.loads(text)
            lines[line["start"]] = line
        except (ValueError, KeyError, TypeError):
            continue
    return list(lines.values())
