"""What a run tells while it trains: metrics on disk, progress, complaints of its health."""

import math
from pathlib import Path

import jax
import jax.numpy as jnp
from flax import linen as nn

from vaejax.config import Config
from vaejax.records import progress
from vaejax.records.checkpoint_files import METRIC
from vaejax.records.goodput import Clock
from vaejax.records.metric_log import NoReporter, Reporter
from vaejax.records.progress import say
from vaejax.training import step
from vaejax.training.divergence import explain_divergence, loss_bits
from vaejax.training.evaluation import Totals, summarize
from vaejax.training.evidence import per_factor
from vaejax.training.evidence import summarize as evidence_summary
from vaejax.training.health import Health
from vaejax.training.optimizer import learning_rate


class Reports:
    """The reports of one run, from the step on at which they were opened last.

    Attributes:
      reporter: for pictures.
      progress: to be told of each step.
      lowest_loss: the lowest of the windows so far, in bits/dim; it is saved with the run.
    """

    def __init__(self, model: nn.Module, config: Config, workdir: Path, clock: Clock, speaks: bool):
        """Opens nothing yet.

        Args:
          model: of the run.
          config: of the run.
          workdir: where its metrics are kept.
          clock: of the run, which `progress` tells of the waits.
          speaks: of several processes one does.
        """
        self._model, self._config = model, config
        self._workdir, self._clock = workdir, clock
        self._kind = Reporter if speaks else NoReporter
        self._health = Health(config)
        self.lowest_loss = math.inf
        self._train_values: dict[str, float] | None = None

    def open(self, at: int, evaluation_due: bool) -> None:
        """Begins at step `at`, without what was told from after it."""
        settings = self._config.train
        self.reporter = self._kind(self._workdir, at, evaluation_due)
        self.progress = progress.Training(at, settings.steps, settings.batch_size, self._clock)

    def close(self) -> None:
        """Writes out what is left."""
        self.progress.close()
        self.reporter.close()

    def training(self, at: int, state: step.TrainState) -> str:
        """Tells of the updates since the last time, up to step `at`, if any was applied.

        Returns:
          Why training has diverged; empty where it has not. Nothing else is then said of it.
        """
        window = jax.device_get(state.window)
        self._clock.note(at)
        rate, data_wait = self.progress.images_per_second(), self.progress.data_wait()
        self.progress.restart_clock()
        if window.updates == 0:
            return ""
        values, parts = self._window_values(at, state, window), per_factor(window.sums)
        # The clock's figures are not part of what a resumed run repeats.
        clock = {"images_per_second": rate, "data_wait": data_wait} if rate else {}
        self.reporter.write(at, "train", {**values, **parts, **clock})
        self.progress.line(values, rate)
        self._train_values = values
        diverged = explain_divergence(self._config, at, values, self.lowest_loss)
        self.lowest_loss = min(self.lowest_loss, loss_bits(self._config, values))
        if diverged:
            return diverged
        for complaint in self._health.training(at, {**values, **parts}):
            say(f"health: {complaint}")
        return ""

    def has_diverged(self, at: int, state: step.TrainState) -> bool:
        """Whether the updates since the last log, up to step `at`, say that training has."""
        window = jax.device_get(state.window)
        if window.updates == 0:
            return False
        values = self._window_values(at, state, window)
        return bool(explain_divergence(self._config, at, values, self.lowest_loss))

    def validation(self, at: int, totals: Totals) -> dict[str, float]:
        """Tells of the validation at step `at`, and gives its figures."""
        values = summarize(totals, self._model, self._config)
        self.reporter.write(at, "valid", values)
        say(
            f"step {at}  validation: {values[METRIC]:.4f} bits/dim (ELBO)  "
            f"{values['kl_nats']:.0f} nats KL  PSNR {values['psnr']:.2f}  SSIM {values['ssim']:.3f}"
        )
        for complaint in self._health.validation(self._train_values, values):
            say(f"health: {complaint}")
        return values

    def _window_values(
        self, at: int, state: step.TrainState, window: step.Window
    ) -> dict[str, float]:
        config, last = self._config, jnp.asarray(at - 1)
        beta = float(step.beta_at(config, last))
        return {
            **evidence_summary(window.sums, math.prod(config.data.shape), beta),
            "gradient_norm": float(window.gradient_norm / window.updates),
            "beta": beta,
            "learning_rate": float(learning_rate(config, last)) * float(state.learning_rate_scale),
            "skipped": int(state.skipped),
            "rollbacks": int(state.rollbacks),
        }
