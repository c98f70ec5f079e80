"""What a run records: metrics on disk and in TensorBoard."""

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter

from vaejax.files.atomic import naming, replacing
from vaejax.files.strict_json import dumps
from vaejax.records.progress import say
from vaejax.runtime.quiet import board_lost


class MetricsFile:
    """`metrics.jsonl`: one JSON object a line, its step first."""

    def __init__(self, path: Path, resume_step: int, evaluation_due: bool = False):
        """Opens the file and drops the lines after `resume_step`.

        A killed run may have logged steps that its last checkpoint does not hold; they are
        about to be made again. A line cut off by the kill goes too.

        Args:
          path: path of the file.
          resume_step: the checkpoint's.
          evaluation_due: whether that step is yet to be validated.
        """
        position = (resume_step, not evaluation_due)
        kept = [line for line in _lines(path) if _position(line) <= position]
        with replacing(path) as temporary:
            temporary.write_text("".join(line + "\n" for line in kept))
        self._path, self._file = path, path.open("a")

    def write(self, step: int, split: str, values: Mapping[str, float | list[float]]) -> None:
        """Appends one line and flushes it."""
        with naming(self._path):
            self._file.write(dumps({"step": step, "split": split, **values}) + "\n")
            self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def last_step(path: Path) -> int:
    """The last step that a `metrics.jsonl` tells of; 0 if there is none."""
    steps = [_position(line)[0] for line in _lines(path)]
    return int(max((step for step in steps if step < math.inf), default=0))


def _lines(path: Path) -> list[str]:
    # Whatever a damaged disk made of it: lines that are none are dropped.
    return path.read_text(errors="replace").splitlines() if path.is_file() else []


def _position(line: str) -> tuple[float, bool]:
    """Where a line stands in a run: its step, and whether it is the validation's."""
    try:
        values = json.loads(line)
        return float(values["step"]), values["split"] == "valid"
    except (ValueError, KeyError, TypeError):
        return math.inf, True


class Reporter:
    """Sends each set of metrics to `metrics.jsonl`, and to TensorBoard as long as that works."""

    def __init__(self, workdir: Path, resume_step: int, evaluation_due: bool = False):
        """Opens both, without what they hold from after `resume_step` and its evaluation."""
        self._file = MetricsFile(workdir / "metrics.jsonl", resume_step, evaluation_due)
        self._board = _Board(workdir / "tensorboard", resume_step + 1)

    def write(self, step: int, split: str, values: Mapping[str, float | list[float]]) -> None:
        """Records `values`; lists go to the file alone."""
        self._file.write(step, split, values)
        for name, value in values.items():
            # Of a number that is not finite the board's library complains on the terminal.
            if not isinstance(value, list) and math.isfinite(value):
                self._board.call("add_scalar", f"{split}/{name}", value, step)

    def picture(self, step: int, name: str, image) -> None:
        """Records a picture [height, width, channel], uint8."""
        self._board.call("add_image", name, image, step, dataformats="HWC")

    def close(self) -> None:
        """Writes out what is left."""
        self._file.close()
        self._board.call("close")


class _Board:
    """TensorBoard's file, which a run can do without: that its library fails is said once."""

    def __init__(self, place: Path, purge_step: int):
        self._writer: SummaryWriter | None = None
        with self._telling():
            # As long a queue as need be: when its writer has died of a full disk, nothing waits
            # for it.
            self._writer = SummaryWriter(str(place), purge_step=purge_step, max_queue=0)

    def call(self, method: str, *values: Any, **settings: Any) -> None:
        if self._writer is not None:
            with self._telling():
                getattr(self._writer, method)(*values, **settings)

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._writer = None
            say(board_lost(error))


class NoReporter:
    """A reporter of a process for which another one speaks."""

    def __init__(self, workdir: Path, resume_step: int, evaluation_due: bool = False):
        """Opens nothing."""

    def write(self, step: int, split: str, values: Mapping[str, float | list[float]]) -> None:
        """Records no metrics: another process does."""

    def picture(self, step: int, name: str, image) -> None:
        """Records no picture: another process does."""

    def close(self) -> None:
        """Closes nothing: no file is open."""
