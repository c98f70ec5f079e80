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
    """The reports of one run, from the step on at which they were opened last.

    Attributes:
      reporter: for pictures.
      progress: to be told of each step.
      lowest_loss: the lowest `Task.loss_of` of the windows so far; it is saved with the run.
    """

    def __init__(
        self, task: Task, settings: TrainConfig, workdir: Path, clock: Clock, speaks: bool
    ):
        """Opens nothing yet.

        Args:
          task: what is learned.
          settings: settings of the loop.
          workdir: where its metrics are kept.
          clock: clock of the run, which `progress` tells of the waits.
          speaks: whether this process prints; of several processes one does.
        """
        self._task, self._settings = task, settings
        self._workdir, self._clock = workdir, clock
        self._kind = Reporter if speaks else NoReporter
        self._health = task.health()
        self.lowest_loss = math.inf
        self._train_values: Values | None = None

    def open(self, at: int, evaluation_due: bool) -> None:
        """Begins at step `at`, without what was told from after it."""
        settings = self._settings
        self.reporter = self._kind(self._workdir, at, evaluation_due)
        self.progress = progress.Training(at, settings.steps, settings.batch_size, self._clock)

    def close(self) -> None:
        """Writes out what is left."""
        self.progress.close()
        self.reporter.close()

    def training(self, at: int, carry: Carry) -> str:
        """Tells of the updates since the last time, up to step `at`, if any was applied.

        Returns:
          Why training has diverged; empty where it has not. Nothing else is then said of it.
        """
        window = jax.device_get(carry.window)
        self._clock.note(at)
        rate, data_wait = self.progress.images_per_second(), self.progress.data_wait()
        self.progress.restart_clock()
        if window.updates == 0:
            return ""
        values = self._window_values(at, carry.state, window)
        # The clock's figures are not part of what a resumed run repeats.
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
        """Whether the updates since the last log, up to step `at`, say that training has."""
        window = jax.device_get(carry.window)
        if window.updates == 0:
            return False
        values = self._window_values(at, carry.state, window)
        return bool(self._task.divergence(at, values, self.lowest_loss))

    def validation(self, at: int, values: Values) -> None:
        """Tells of the validation at step `at`."""
        self.reporter.write(at, "valid", values)
        say(f"step {at}  validation: {self._task.describe_validation(values)}")
        for complaint in self._health.validation(self._train_values, values):
            say(f"health: {complaint}")

    def _window_values(self, at: int, state: TrainState, window: Window) -> Values:
        scale = float(state.learning_rate_scale)
        values: dict[str, Any] = self._task.summarize(window.sums, at)
        trained = {name: own for name, own in self._task.optimizers.items() if own}
        for name, own in trained.items():
            # Of one network without its name.
            suffix = f"_{name}" if len(trained) > 1 else ""
            rate = learning_rate(own, self._settings.steps, at - 1, np)
            norm = window.gradient_norm[name] / window.updates
            values[f"gradient_norm{suffix}"] = float(norm)
            values[f"learning_rate{suffix}"] = float(rate) * scale
        return {**values, "skipped": state.skipped(), "rollbacks": int(state.rollbacks)}
