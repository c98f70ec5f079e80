"""Where a run's time goes, over all of its starts: `goodput.jsonl` in its work directory."""

import itertools
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from vaejax.files.atomic import naming
from vaejax.files.strict_json import dumps

# What a line of the file tells of, in seconds since its start. Importing the libraries comes
# before all of it and is not counted.
PHASES = ("start", "compile", "steps", "data_wait", "evaluation", "checkpoints")
FILE = "goodput.jsonl"


class Clock:
    """The time of one start of a run, by what it went into; the inner phase of two counts."""

    def __init__(self) -> None:
        """Starts in the phase `start`."""
        self._since, self._mark, self._phase = time.time(), time.monotonic(), "start"
        self._seconds = dict.fromkeys(PHASES, 0.0)
        self._file: TextIO | None = None
        self._first = self._saved = 0

    def open(self, workdir: Path, first_step: int) -> None:
        """Ends the phase `start`; from here on `note` appends to the file.

        Args:
          workdir: work directory of the run.
          first_step: at which this start begins.
        """
        self._enter("steps")
        self._file, self._first = (workdir / FILE).open("a"), first_step
        self._saved = first_step

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Around what the time of `name` goes into."""
        outer = self._enter(name)
        yield
        self._enter(outer)

    def move(self, seconds: float, to: str) -> None:
        """Counts seconds that passed among the steps as another phase's."""
        self._seconds["steps"] -= seconds
        self._seconds[to] += seconds

    def note(self, step: int, saved: int | None = None) -> None:
        """Appends how things stand at `step`, for a process may end at any time.

        Args:
          step: updates so far.
          saved: the step of the newest checkpoint that is on disk; as before if left out.
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
        """Leaves the current phase for `name`, and says which it was."""
        now = time.monotonic()
        self._seconds[self._phase] += now - self._mark
        outer, self._phase, self._mark = self._phase, name, now
        return outer


def account(workdir: Path) -> dict[str, float]:
    """Seconds of a whole run by what they went into; empty if nothing was noted.

    Beside `PHASES`: `lost`, for steps made again because a start ended before it saved them, which
    are not counted as `steps`; and `between`, from the end of one start to the beginning of the
    next, as far as the file shows the end.
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
    """The newest step that was on disk when somebody last looked; None if the file does not say."""
    lines = [line for line in _last_lines(workdir / FILE) if "saved" in line]
    return lines[-1]["saved"] if lines else None


def summary(workdir: Path) -> str:
    """One line for people: how much of the time went into steps, and where the rest."""
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
    """The last line of each start; one that was cut off by a kill does not count."""
    lines: dict[float, dict] = {}
    for text in path.read_text(errors="replace").splitlines() if path.is_file() else []:
        try:
            line = json.loads(text)
            lines[line["start"]] = line
        except (ValueError, KeyError, TypeError):
            continue
    return list(lines.values())
