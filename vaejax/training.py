"""The host loop: restore, step, log, evaluate, save, stop."""

import dataclasses
import enum
import time
from contextlib import ExitStack
from itertools import takewhile
from pathlib import Path

import jax
import numpy as np

from vaejax import data, step
from vaejax.config import Config
from vaejax.data import pipeline
from vaejax.data.lazy_tensorflow import import_tensorflow_meanwhile
from vaejax.diagnosis import explain_not_finite
from vaejax.errors import TrainingError
from vaejax.evaluation import Totals, evaluate, make_eval_step
from vaejax.feeding import Feed
from vaejax.gallery import Gallery
from vaejax.goodput import Clock, summary
from vaejax.models import build_model
from vaejax.parallel import (
    SharedFlag,
    device_memory,
    fitting_fsdp,
    gathered,
    make_mesh,
    own_copy,
    round_up,
    state_shardings,
    to_every_device,
)
from vaejax.processes import ALONE, Group
from vaejax.progress import say
from vaejax.reports import Reports
from vaejax.resuming import open_checkpoints, restore_newest
from vaejax.settings import common, save_json
from vaejax.signals import Stop, stop_on_signal
from vaejax.workdir import check_nothing_lost, claim

# A run that needs a third rollback does not suffer from its learning rate.
MAX_ROLLBACKS = 2

# In what is saved beside a state: its evaluation is still to be done.
DUE = "evaluation_due"


class Outcome(enum.Enum):
    """How a call of `train` ended."""

    FINISHED = "finished"
    INTERRUPTED = "interrupted"


def train(config: Config, workdir: Path, group: Group = ALONE) -> Outcome:
    """Trains until `config.train.steps`, or until asked to stop.

    Goes on from the newest checkpoint in `workdir`, if there is one, exactly as if it had
    never stopped. SIGINT and SIGTERM, at any process, save and return; a second SIGINT ends at
    once.

    Args:
      config: of the run.
      workdir: where it is kept; all processes must see it.
      group: the processes that train together.

    Raises:
      UserError: the work directory holds another run, or the data is missing or changed.
      TrainingError: the loss stayed infinite after two rollbacks.
    """
    # Opening may take minutes and leaves nothing half done: a signal ends it at once.
    with (
        claim(workdir, config, group),
        ExitStack() as opened,
        # Within: where one process fails, what others would have to finish too is not waited for.
        group.watching(),
    ):
        run = Run(config, workdir, group, opened)
        with stop_on_signal() as stop:
            return run.go(stop)


class Run:
    """One process's part in a training run: what was opened, and the loop over it."""

    def __init__(self, config: Config, workdir: Path, group: Group, opened: ExitStack):
        """Opens data, devices, model and checkpoints, and restores what there is.

        Args:
          config: of the run.
          workdir: of the run.
          group: the processes that train together.
          opened: finishes at its end what is under way, and lets go of everything.
        """
        self.clock = Clock()
        self.config, self.workdir, self.group = config, workdir, group
        group.check_alike(common(config))
        self.model = build_model(config)
        self.shapes = step.state_shapes(self.model, config)
        memory = group.least(device_memory())
        with group.together():
            fsdp = config.train.fsdp or fitting_fsdp(self.shapes, memory, jax.local_device_count())
            self.mesh = make_mesh(config.train.batch_size, fsdp, accumulate=config.train.accumulate)
            self.dataset = data.open_dataset(config.data)
        group.check_alike(self.dataset.fingerprint)
        import_tensorflow_meanwhile()
        self.shardings = state_shardings(self.mesh, self.shapes)
        self.feed = Feed(config, self.dataset.splits["train"].images, self.mesh, memory)
        self.train_step = step.make_train_step(
            self.model, config, self.mesh, on_device=bool(self.feed.resident)
        )
        self.eval_step = make_eval_step(config, self.mesh)
        self.gallery = Gallery(config, self.dataset, workdir / "pictures")
        self.reports = Reports(self.model, config, workdir, self.clock, speaks=group.index == 0)
        self.anyone_stops = SharedFlag(self.mesh)
        self.checkpoints = open_checkpoints(workdir, config.train.keep, group)
        opened.callback(self.checkpoints.close)
        with group.together():
            if not self.checkpoints.steps():
                check_nothing_lost(workdir, config.train.save_every)
        self._restore()
        self.reports.open(self.step, self.evaluation_due)
        opened.callback(self.reports.close)
        if group.index == 0:
            # Only now: a start that failed for want of data leaves no claim on the directory.
            save_json(workdir / "config.json", config)
            self.clock.open(workdir, self.step)
            opened.callback(self.clock.close)

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
            if self.anyone_stops.poll(stop.requested):
                return self._interrupt()
            if self.evaluation_due:
                with self.clock.phase("evaluation"):
                    self._evaluate_and_save(stop)
                continue
            with self.reports.progress.waiting(previous_loss):
                batch = next(batches)
            with self.clock.phase("compile" if previous_loss is None else "steps"):
                self.state, loss = self.train_step(self.state, batch, *self.feed.resident)
                # One dispatch stays queued: the device never waits for the host, and a request to
                # stop never waits for a long queue.
                jax.block_until_ready(loss if previous_loss is None else previous_loss)
            self.step += settings.steps_per_dispatch
            self.reports.progress.advance(self.step)
            if previous_loss is None:
                say(f"first step done after {time.monotonic() - started:.1f} s")
                self.reports.progress.restart_clock()
            previous_loss = loss
            last = self.step >= settings.steps
            if (self.step % settings.log_every == 0 or last) and not self._log():
                self._roll_back()
                batches = self.feed.batches(self.step)
                continue
            self.evaluation_due = self.step % settings.eval_every == 0 or last
            if self.step % settings.save_every == 0 and not self.evaluation_due:
                self._save(None)
        self._wait_for_checkpoints()
        if self.group.index == 0:
            say(f"time: {summary(self.workdir)}")
        asked = self.anyone_stops.ask(stop.requested)
        return Outcome.INTERRUPTED if asked else Outcome.FINISHED

    def _restore(self) -> None:
        """Takes up the newest checkpoint's state, or a fresh one."""
        restored = restore_newest(
            self.checkpoints,
            self.shapes,
            self.shardings,
            config=self.config,
            fingerprint=self.dataset.fingerprint,
            workdir=self.workdir,
            group=self.group,
        )
        if restored:
            self.state, meta = restored
            self.evaluation_due = meta[DUE]
        else:
            start = step.starting(self.model, self.config)
            key = jax.random.key(self.config.train.seed)
            self.state = jax.jit(start, out_shardings=self.shardings)(key)
            self.evaluation_due = False
        self.step = self.saved_step = int(self.state.step)

    def _log(self) -> bool:
        """Reports the window; False if too many updates in a row were skipped."""
        self.reports.training(self.step, self.state)
        return int(self.state.skipped_in_row) < self.config.train.max_skipped

    def _evaluate_and_save(self, stop: Stop) -> None:
        """Draws the pictures, validates, and saves; leaves all three due if asked to stop.

        In this order: a checkpoint of an evaluated step promises that its metrics are written.
        """
        params = gathered(self.state.ema_params, self.mesh)
        if self.group.index == 0:
            self.gallery.draw(self.step, own_copy(params), self.reports.reporter)
        totals = self._validate(params, stop)
        if not self.anyone_stops.ask(stop.requested):
            self.evaluation_due = False
            self._save(self.reports.validation(self.step, totals) if totals else None)
        self.reports.progress.restart_clock()

    def _validate(self, params: dict, stop: Stop) -> Totals | None:
        """Sums over the validation split, or over a part of it if asked to stop meanwhile."""
        if "valid" not in self.dataset.splits:
            return None
        images = self.dataset.splits["valid"].images
        images = images[: self.config.eval.pictures or len(images)]
        batches = pipeline.eval_batches(
            images,
            # Padding does not count, so a larger batch gives the same numbers.
            batch_size=round_up(self.config.eval.batch_size, self.mesh),
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        batches = takewhile(lambda _: not self.anyone_stops.poll(stop.requested), batches)
        return evaluate(self.eval_step, params, batches, self.mesh)

    def _save(self, metrics: dict[str, float] | None) -> None:
        # Not within a row of skipped updates: a rollback must not lead back to what fails. None
        # follows on the last step, whose parameters are those of before the row.
        if int(self.state.skipped_in_row) > 0 and self.step < self.config.train.steps:
            say(f"step {self.step} is not saved: the last updates were not finite")
            return
        meta = {
            "step": self.step,
            "examples": self.step * self.config.train.batch_size,
            "config": dataclasses.asdict(self.config),
            "data": self.dataset.fingerprint,
            DUE: self.evaluation_due,
        }
        with self.clock.phase("checkpoints"):
            self.checkpoints.save(self.step, self.state, meta, metrics)
        self.clock.note(self.step)
        self.saved_step = self.step
        self.reports.progress.restart_clock()

    def _interrupt(self) -> Outcome:
        if self.step > self.saved_step or not self.checkpoints.steps():
            self._save(None)
        self._wait_for_checkpoints()
        return Outcome.INTERRUPTED

    def _wait_for_checkpoints(self) -> None:
        with self.clock.phase("checkpoints"):
            self.checkpoints.wait()
        self.clock.note(self.step)

    def _roll_back(self) -> None:
        """Goes back to the newest checkpoint with a smaller learning rate.

        Raises:
          TrainingError: this has happened too often.
        """
        self._wait_for_checkpoints()
        failed, rollbacks = self.step, int(self.state.rollbacks) + 1
        if rollbacks > MAX_ROLLBACKS:
            images = self.dataset.splits["train"].images
            params = own_copy(gathered(self.state.params, self.mesh))
            why = explain_not_finite(self.model, self.config, params, images, self.step - 1)
            self.group.leave()
            raise TrainingError(
                f"step {failed}: loss or gradient is still not finite after {MAX_ROLLBACKS} "
                f"rollbacks; {why}"
            )
        scale = float(self.state.learning_rate_scale) * self.config.train.rollback_factor
        self._restore()
        self.state = self.state.replace(
            rollbacks=to_every_device(np.asarray(rollbacks, np.int32), self.mesh),
            learning_rate_scale=to_every_device(np.asarray(scale, np.float32), self.mesh),
        )
        say(
            f"step {failed}: {self.config.train.max_skipped} or more updates in a row were not "
            f"finite; back to step {self.step} with {scale:.2g} of the learning rate "
            f"(rollback {rollbacks} of {MAX_ROLLBACKS})"
        )
        self.reports.close()
        self.reports.open(self.step, self.evaluation_due)
