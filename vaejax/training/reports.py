"""Logs a run while it trains: metrics on disk, progress, health warnings."""

import math
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vaejax.config import TrainConfig
from vaejax.records import progress
from vaejax.records.goodput import Clock
from vaejax.records.metric_log import NoReporter, Reporter
from vaejax.records.progress import say
from vaejax.training.optimizer import learning_rate
from vaejax.training.state import Carry, TrainState, Window
from vaejax.training.task import Task, Values


class Reports:
    """Writes and prints the metrics, progress and health warnings of one run.

    `open` comes before anything else, and once more after each rollback.

    Attributes:
      reporter: writes the metrics and pictures.
      progress: shows the progress; the loop reports each step to it.
      lowest_loss: the lowest `Task.loss_of` of the windows so far; it is saved with the run.
    """

    def __init__(
        self, task: Task, settings: TrainConfig, workdir: Path, clock: Clock, speaks: bool
    ):
        """Stores what `open` needs, and opens nothing yet.

        Args:
          task: what is trained.
          settings: settings of the loop.
          workdir: the run's directory, where the metrics are written.
          clock: the run's clock, which also counts the time spent waiting for batches.
          speaks: whether this process writes the metrics; of several processes only one does.
        """
        self._task, self._settings = task, settings
        self._workdir, self._clock = workdir, clock
        self._kind = Reporter if speaks else NoReporter
        self._health = task.health()
        self.lowest_loss = math.inf
        self._train_values: Values | None = None

    def open(self, at: int, evaluation_due: bool) -> None:
        """Opens the reports at step `at`, and drops the metrics of later steps.

        Args:
          at: number of updates so far.
          evaluation_due: whether the evaluation at `at` is still to be done; its metrics are then
            dropped as well.
        """
        settings = self._settings
        self.reporter = self._kind(self._workdir, at, evaluation_due)
        self.progress = progress.Training(at, settings.steps, settings.batch_size, self._clock)

    def close(self) -> None:
        """Closes the progress bar and the metric files."""
        self.progress.close()
        self.reporter.close()

    def training(self, at: int, carry: Carry) -> str:
        """Reports the updates since the last log, if any of them was applied.

        Args:
          at: number of updates so far.
          carry: the state and the window after them.

        Returns:
          Why training has diverged, in which case no health warning is printed; empty if it has
          not.
        """
        window = jax.device_get(carry.window)
        self._clock.note(at)
        rate, data_wait = self.progress.images_per_second(), self.progress.data_wait()
        self.progress.restart_clock()
        if window.updates == 0:
            return ""
        values = self._window_values(at, carry.state, window)
        # Apart from the others, because a resumed run does not repeat the times.
        clock = {"images_per_second": rate, "data_wait": data_wait} if rate else {}
        self.reporter.write(at, "train", {**values, **clock})
        self.progress.line(self._task.describe(values), rate)
        self._train_values = values
        diverged = self._task.divergence(at, values, self.lowest_loss)
        self.lowest_loss = min(self.lowest_loss, self._task.loss_of(values))
        if diverged:
            return diverged
        for complaint in self._health.training(at, values):
            say(f"health: {complaint}")
        return ""

    def has_diverged(self, at: int, carry: Carry) -> bool:
        """Whether the updates since the last log, up to step `at`, show that training diverged."""
        window = jax.device_get(carry.window)
        if window.updates == 0:
            return False
        values = self._window_values(at, carry.state, window)
        return bool(self._task.divergence(at, values, self.lowest_loss))

    def validation(self, at: int, values: Values) -> None:
        """Writes and prints the metrics of the validation at step `at`, and its warnings."""
        self.reporter.write(at, "valid", values)
        say(f"step {at}  validation: {self._task.describe_validation(values)}")
        for complaint in self._health.validation(self._train_values, values):
            say(f"health: {complaint}")

    def _window_values(self, at: int, state: TrainState, window: Window) -> Values:
        scale = float(state.learning_rate_scale)
        values: dict[str, Any] = self._task.summarize(window.sums, at)
        trained = {name: own for name, own in self._task.optimizers.items() if own}
        for name, own in trained.items():
            # The names have a suffix only if several networks are trained.
            suffix = f"_{name}" if len(trained) > 1 else ""
            rate = learning_rate(own, self._settings.steps, at - 1, np)
            norm = window.gradient_norm[name] / window.updates
            values[f"gradient_norm{suffix}"] = float(norm)
            values[f"learning_rate{suffix}"] = float(rate) * scale
        return {**values, "skipped": state.skipped(), "rollbacks": int(state.rollbacks)}
