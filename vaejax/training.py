"""The host loop: restore, step, log, evaluate, save, stop."""

import dataclasses
import enum
import time
from contextlib import ExitStack, closing
from itertools import takewhile
from pathlib import Path

import jax
import jax.numpy as jnp

from vaejax import data, progress, step
from vaejax.checkpoints import METRIC, Checkpoints
from vaejax.config import Config
from vaejax.data import pipeline
from vaejax.data.lazy_tensorflow import import_tensorflow_meanwhile
from vaejax.diagnosis import explain_not_finite
from vaejax.errors import TrainingError
from vaejax.evaluation import evaluate, make_eval_step, summarize
from vaejax.evidence import summarize as evidence_summary
from vaejax.feeding import Feed
from vaejax.gallery import Gallery
from vaejax.health import Health
from vaejax.models import build_model
from vaejax.objectives import latent_usage
from vaejax.optimizer import learning_rate
from vaejax.parallel import make_mesh, replicated, round_up
from vaejax.progress import say
from vaejax.reporting import Reporter
from vaejax.settings import resolve, save_json
from vaejax.signals import Stop, stop_on_signal
from vaejax.workdir import check_nothing_lost, check_same_data, check_same_run, claim

# A run that needs a third rollback does not suffer from its learning rate.
MAX_ROLLBACKS = 2


class Outcome(enum.Enum):
    """How a call of `train` ended."""

    FINISHED = "finished"
    INTERRUPTED = "interrupted"


def train(config: Config, workdir: Path) -> Outcome:
    """Trains until `config.train.steps`, or until asked to stop.

    Goes on from the newest checkpoint in `workdir`, if there is one, exactly as if it had
    never stopped. SIGINT and SIGTERM save and return; a second SIGINT ends at once.

    Raises:
      UserError: the work directory holds another run, or the data is missing or changed.
      TrainingError: the loss stayed infinite after two rollbacks.
    """
    # Opening may take minutes and leaves nothing half done: a signal ends it at once.
    with claim(workdir, config), closing(Run(config, workdir)) as run, stop_on_signal() as stop:
        return run.go(stop)


class Run:
    """One process's part in a training run: what was opened, and the loop over it."""

    def __init__(self, config: Config, workdir: Path):
        """Opens data, devices, model and checkpoints, and restores what there is."""
        self.config, self.workdir = config, workdir
        self.mesh = make_mesh(config.train.batch_size)
        self.dataset = data.open_dataset(config.data)
        import_tensorflow_meanwhile()
        self.model = build_model(config)
        self.feed = Feed(config, self.dataset.splits["train"].images, self.mesh)
        self.train_step = step.make_train_step(
            self.model, config, self.mesh, on_device=bool(self.feed.resident)
        )
        self.eval_step = make_eval_step(self.model, config, self.mesh)
        self.gallery = Gallery(self.model, config, self.dataset, workdir / "pictures")
        self.health = Health(config)
        self.train_values: dict[str, float] | None = None
        self.checkpoints = Checkpoints(workdir / "checkpoints", keep=config.train.keep)
        with ExitStack() as on_failure:
            on_failure.callback(self.checkpoints.close)
            if not self.checkpoints.steps():
                check_nothing_lost(workdir, config.train.save_every)
            self._restore()
            self._open_reports()
            # Only now: a start that failed for want of data leaves no claim on the directory.
            save_json(workdir / "config.json", config)
            on_failure.pop_all()

    def go(self, stop: Stop) -> Outcome:
        """The loop. The order of log, evaluate and save is part of what makes resume exact."""
        settings = self.config.train
        if self.step < settings.steps:
            say(f"training from step {self.step} to {settings.steps} in {self.workdir}")
        else:
            say(f"{self.workdir} is at step {self.step} of config.train.steps={settings.steps}")
        started, previous_loss = time.monotonic(), None
        batches = self.feed.batches(self.step)
        while self.step < settings.steps or self.evaluation_due:
            if stop.requested:
                return self._interrupt()
            if self.evaluation_due:
                self._evaluate_and_save(stop)
                continue
            with self.progress.waiting(previous_loss):
                batch = next(batches)
            self.state, loss = self.train_step(self.state, batch, *self.feed.resident)
            self.step += settings.steps_per_dispatch
            # One dispatch stays queued: the device never waits for the host, and a request to
            # stop never waits for a long queue.
            if previous_loss is None:
                jax.block_until_ready(loss)
                say(f"first step done after {time.monotonic() - started:.1f} s")
                self.progress.restart_clock()
            else:
                jax.block_until_ready(previous_loss)
            previous_loss = loss
            self.progress.advance(self.step)
            last = self.step >= settings.steps
            if (self.step % settings.log_every == 0 or last) and not self._log():
                self._roll_back()
                batches = self.feed.batches(self.step)
                continue
            self.evaluation_due = self.step % settings.eval_every == 0 or last
            if self.step % settings.save_every == 0 and not self.evaluation_due:
                self._save(None)
        self.checkpoints.wait()
        return Outcome.INTERRUPTED if stop.requested else Outcome.FINISHED

    def close(self) -> None:
        """Finishes what is under way and lets go of everything."""
        self.progress.close()
        self.reporter.close()
        self.checkpoints.close()

    def _open_reports(self) -> None:
        """Metrics and progress, from the current step on."""
        settings = self.config.train
        self.reporter = Reporter(self.workdir, self.step, self.evaluation_due)
        self.progress = progress.Training(self.step, settings.steps, settings.batch_size)

    def _restore(self) -> None:
        """Takes up the newest checkpoint's state, or a fresh one."""
        self.state, self.evaluation_due = self._newest_state()
        self.step = self.saved_step = int(self.state.step)

    def _newest_state(self) -> tuple[step.TrainState, bool]:
        """The state, and whether its evaluation is still to be done."""
        steps = self.checkpoints.steps()
        if not steps:
            key = jax.random.key(self.config.train.seed)
            init = jax.jit(
                lambda key: step.init_state(self.model, self.config, key),
                out_shardings=replicated(self.mesh),
            )
            return init(key), False
        meta = self.checkpoints.meta(steps[-1])
        check_same_run(self.workdir, resolve(meta["config"]), self.config)
        check_same_data(self.workdir, meta["data"], self.dataset.fingerprint)
        like = jax.eval_shape(lambda: step.init_state(self.model, self.config, jax.random.key(0)))
        state = self.checkpoints.restore(steps[-1], like, replicated(self.mesh))
        return state, meta["evaluation_due"]

    def _log(self) -> bool:
        """Reports the window; False if too many updates in a row were skipped."""
        window = jax.device_get(self.state.window)
        skipped = int(self.state.skipped_in_row)
        rate, data_wait = self.progress.images_per_second(), self.progress.data_wait()
        self.progress.restart_clock()
        if window.updates > 0:
            values = self._window_values(window)
            # The clock's figures are not part of what a resumed run repeats.
            clock = {"images_per_second": rate, "data_wait": data_wait}
            self.reporter.write(self.step, "train", {**values, **clock})
            self.progress.line(values, rate)
            self.train_values = values
            for complaint in self.health.training(self.step, values):
                say(f"health: {complaint}")
        return skipped < self.config.train.max_skipped

    def _window_values(self, window: step.Window) -> dict[str, float | list[float]]:
        config = self.config
        dimensions = self.dataset.splits["train"].images[0].size
        at = jnp.asarray(self.step - 1)
        rate = learning_rate(config, at) * self.state.learning_rate_scale
        return {
            **evidence_summary(window.sums, dimensions, float(step.beta_at(config, at))),
            "gradient_norm": float(window.gradient_norm / window.updates),
            "log_scale": float(window.log_scale / window.updates),
            "beta": float(step.beta_at(config, at)),
            "learning_rate": float(rate),
            "skipped": int(self.state.skipped),
            "information_per_dimension": latent_usage(window.sums.moments).information.tolist(),
        }

    def _evaluate_and_save(self, stop: Stop) -> None:
        """Draws the pictures, validates, and saves; leaves all three due if asked to stop.

        In this order: a checkpoint of an evaluated step promises that its metrics are written.
        """
        self.gallery.draw(self.step, self.state.ema_params, self.reporter)
        metrics = self._validate(stop) if "valid" in self.dataset.splits else None
        if not stop.requested:
            self.evaluation_due = False
            self._save(metrics)
        self.progress.restart_clock()

    def _validate(self, stop: Stop) -> dict[str, float] | None:
        """Validates and reports the averaged parameters; None if asked to stop meanwhile."""
        images = self.dataset.splits["valid"].images
        images = images[: self.config.eval.pictures or len(images)]
        batches = pipeline.eval_batches(
            images,
            # Padding does not count, so a larger batch gives the same numbers.
            batch_size=round_up(self.config.eval.batch_size, self.mesh),
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        batches = takewhile(lambda _: not stop.requested, batches)
        totals = evaluate(self.eval_step, self.state.ema_params, batches, self.mesh)
        if stop.requested:
            return None
        values = summarize(totals, self.config)
        self.reporter.write(self.step, "valid", values)
        say(
            f"step {self.step}  validation: {values[METRIC]:.4f} bits/dim (ELBO)  "
            f"{values['kl_nats']:.0f} nats KL  PSNR {values['psnr']:.2f}  SSIM {values['ssim']:.3f}"
        )
        for complaint in self.health.validation(self.train_values, values):
            say(f"health: {complaint}")
        return values

    def _save(self, metrics: dict[str, float] | None) -> None:
        # Not within a row of skipped updates: a rollback must not lead back to what fails.
        if int(self.state.skipped_in_row) > 0:
            return
        meta = {
            "step": self.step,
            "examples": self.step * self.config.train.batch_size,
            "config": dataclasses.asdict(self.config),
            "data": self.dataset.fingerprint,
            "evaluation_due": self.evaluation_due,
        }
        self.checkpoints.save(self.step, self.state, meta, metrics)
        self.saved_step = self.step
        self.progress.restart_clock()

    def _interrupt(self) -> Outcome:
        if self.step > self.saved_step or not self.checkpoints.steps():
            self._save(None)
        self.checkpoints.wait()
        return Outcome.INTERRUPTED

    def _roll_back(self) -> None:
        """Goes back to the newest checkpoint with a smaller learning rate.

        Raises:
          TrainingError: this has happened too often.
        """
        failed, rollbacks = self.step, int(self.state.rollbacks) + 1
        if rollbacks > MAX_ROLLBACKS:
            images = self.dataset.splits["train"].images
            why = explain_not_finite(
                self.model, self.config, self.state.params, images, self.step - 1
            )
            raise TrainingError(
                f"step {failed}: loss or gradient is still not finite after {MAX_ROLLBACKS} "
                f"rollbacks; {why}"
            )
        self.checkpoints.wait()
        scale = self.state.learning_rate_scale * self.config.train.rollback_factor
        self._restore()
        self.state = self.state.replace(
            rollbacks=jnp.full_like(self.state.rollbacks, rollbacks), learning_rate_scale=scale
        )
        say(
            f"step {failed}: {self.config.train.max_skipped} or more updates in a row were not "
            f"finite; back to step {self.step} with {float(scale):.2g} of the learning rate "
            f"(rollback {rollbacks} of {MAX_ROLLBACKS})"
        )
        self.progress.close()
        self.reporter.close()
        self._open_reports()
