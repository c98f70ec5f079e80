"""Records the metrics of a run, in `metrics.jsonl` and for TensorBoard."""

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
    """The file `metrics.jsonl`: one JSON object per line, with the step first."""

    def __init__(self, path: Path, resume_step: int, evaluation_due: bool = False):
        """Opens the file and drops the lines after `resume_step`.

        A killed run may have logged steps after its last checkpoint, which are about to be
        repeated. A line cut off by the kill is dropped too.

        Args:
          path: path of the file.
          resume_step: step of the checkpoint that the run continues from.
          evaluation_due: whether that step is still to be validated; a line of its validation is
            then dropped too.
        """
        position = (resume_step, not evaluation_due)
        kept = [line for line in _lines(path) if _position(line) <= position]
        with replacing(path) as temporary:
            temporary.write_text("".join(line + "\n" for line in kept))
        self._path, self._file = path, path.open("a")

    def write(self, step: int, split: str, values: Mapping[str, float | list[float]]) -> None:
        """Appends and flushes one line: the metrics of `split`, "train" or "valid", at `step`."""
        with naming(self._path):
            self._file.write(dumps({"step": step, "split": split, **values}) + "\n")
            self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def last_step(path: Path) -> int:
    """Returns the last step in a `metrics.jsonl`; 0 if it has none or does not exist."""
    steps = [_position(line)[0] for line in _lines(path)]
    return int(max((step for step in steps if step < math.inf), default=0))


def _lines(path: Path) -> list[str]:
    # A damaged disk may leave any bytes: lines that cannot be parsed are dropped later.
    return path.read_text(errors="replace").splitlines() if path.is_file() else []


def _position(line: str) -> tuple[float, bool]:
    """Returns a line's step and whether it is of the validation; a broken line comes last."""
    try:
        values = json.loads(line)
        return float(values["step"]), values["split"] == "valid"
    except (ValueError, KeyError, TypeError):
        return math.inf, True


class Reporter:
    """Sends each set of metrics to `metrics.jsonl`, and to TensorBoard as long as that works."""

    def __init__(self, workdir: Path, resume_step: int, evaluation_due: bool = False):
        """Opens both and drops entries after `resume_step`; arguments as for `MetricsFile`."""
        self._file = MetricsFile(workdir / "metrics.jsonl", resume_step, evaluation_due)
        self._board = _Board(workdir / "tensorboard", resume_step + 1)

    def write(self, step: int, split: str, values: Mapping[str, float | list[float]]) -> None:
        """Records the metrics of `split`, "train" or "valid", at `step`; lists only in the file."""
        self._file.write(step, split, values)
        for name, value in values.items():
            # tensorboardX complains on the terminal about a number that is not finite.
            if not isinstance(value, list) and math.isfinite(value):
                self._board.call("add_scalar", f"{split}/{name}", value, step)

    def picture(self, step: int, name: str, image) -> None:
        """Records a picture [height, width, channel], uint8."""
        self._board.call("add_image", name, image, step, dataformats="HWC")

    def close(self) -> None:
        """Flushes and closes both."""
        self._file.close()
        self._board.call("close")


class _Board:
    """TensorBoard's file, which is optional: a failure of its library is reported once."""

    def __init__(self, place: Path, purge_step: int):
        self._writer: SummaryWriter | None = None
        with self._telling():
            # An unbounded queue: when its writer thread has died of a full disk, calls do not
            # block.
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
    """A reporter that records nothing, for a process whose metrics another process records."""

    def __init__(self, workdir: Path, resume_step: int, evaluation_due: bool = False):
        """Opens nothing."""

    def write(self, step: int, split: str, values: Mapping[str, float | list[float]]) -> None:
        """Records no metrics: another process does."""

    def picture(self, step: int, name: str, image) -> None:
        """Records no picture: another process does."""

    def close(self) -> None:
        """Closes nothing: no file is open."""
