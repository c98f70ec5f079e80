"""What a run tells: metrics on disk, TensorBoard, and progress for the person who watches."""

import json
import os
import sys
import time
from pathlib import Path

from tensorboardX import SummaryWriter
from tqdm import tqdm


def say(message: str) -> None:
    """One line for the person; never into the middle of a progress bar."""
    tqdm.write(message, file=sys.stderr)
    sys.stderr.flush()


class MetricsFile:
    """`metrics.jsonl`: one JSON object a line, its step first."""

    def __init__(self, path: Path, resume_step: int):
        """Opens the file and drops the lines after `resume_step`.

        A killed run may have logged steps that its last checkpoint does not hold; they are
        about to be made again. A line cut off by the kill goes too.
        """
        lines = path.read_text().splitlines() if path.exists() else []
        kept = [line for line in lines if _step_of(line) <= resume_step]
        temporary = path.with_suffix(".tmp")
        temporary.write_text("".join(line + "\n" for line in kept))
        os.replace(temporary, path)
        self._file = path.open("a")

    def write(self, step: int, split: str, values: dict[str, float | list[float]]) -> None:
        """Appends one line and flushes it."""
        self._file.write(json.dumps({"step": step, "split": split, **values}) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")


class Progress:
    """A bar with rate and time left on a terminal, plain lines anywhere else.

    The rate counts pictures since the first step after the start was done, so that
    compilation does not spoil it.
    """

    def __init__(self, first: int, total: int, batch_size: int):
        """Starts at step `first` of `total`."""
        self._total, self._batch_size = total, batch_size
        self._step = self._mark_step = first
        self._mark = time.monotonic()
        self._bar = None
        if sys.stderr.isatty():
            self._bar = tqdm(total=total, initial=first, unit="step", dynamic_ncols=True)

    def advance(self, step: int) -> None:
        """Moves to `step`."""
        if self._bar:
            self._bar.update(step - self._step)
        self._step = step

    def restart_clock(self) -> None:
        """Leaves what happened until now (compilation, evaluation, saving) out of the rate."""
        self._mark, self._mark_step = time.monotonic(), self._step

    def images_per_second(self) -> float:
        """Training pictures a second since the clock was restarted."""
        elapsed = time.monotonic() - self._mark
        return (self._step - self._mark_step) * self._batch_size / max(elapsed, 1e-9)

    def line(self, values: dict[str, float], rate: float) -> None:
        """Shows the training metrics of the last window."""
        short = (
            f"{values['elbo_bits_per_dim']:.3f} bits/dim  {values['kl_nats']:.0f} nats KL  "
            f"PSNR {values['psnr_pooled']:.2f}"
        )
        if self._bar:
            self._bar.set_postfix_str(f"{rate:.0f} images/s  {short}")
        else:
            left = (self._total - self._step) * self._batch_size / max(rate, 1e-9)
            say(
                f"step {self._step}/{self._total}  {short}  {rate:.0f} images/s  "
                f"{_clock(left)} left"
            )

    def close(self) -> None:
        """Leaves the terminal in order."""
        if self._bar:
            self._bar.close()


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


class Reporter:
    """Sends each set of metrics to `metrics.jsonl` and TensorBoard."""

    def __init__(self, workdir: Path, resume_step: int):
        """Opens both, without what they hold from after `resume_step`."""
        self._file = MetricsFile(workdir / "metrics.jsonl", resume_step)
        self._board = SummaryWriter(str(workdir / "tensorboard"), purge_step=resume_step + 1)

    def write(self, step: int, split: str, values: dict[str, float | list[float]]) -> None:
        """Records `values`; lists go to the file alone."""
        self._file.write(step, split, values)
        for name, value in values.items():
            if not isinstance(value, list):
                self._board.add_scalar(f"{split}/{name}", value, step)

    def picture(self, step: int, name: str, image) -> None:
        """Records a picture [height, width, channel], uint8."""
        self._board.add_image(name, image, step, dataformats="HWC")

    def close(self) -> None:
        """Writes out what is left."""
        self._file.close()
        self._board.close()
