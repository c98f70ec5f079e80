"""The host loop: restore, step, log, evaluate, save, stop."""

import enum
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NoReturn

import jax

from vaejax.config import Config
from vaejax.config.saved import save_json
from vaejax.data import Dataset
from vaejax.errors import DamagedCheckpoint, TrainingError
from vaejax.records.goodput import summary
from vaejax.records.progress import say
from vaejax.runtime.mesh import SharedFlag, gathered, own_copy
from vaejax.runtime.processes import ALONE, Group
from vaejax.runtime.signals import Stop, stop_on_signal
from vaejax.runtime.watchdog import Watchdog
from vaejax.tasks import build_task
from vaejax.training.beginning import restored_or_new
from vaejax.training.opening import Parts, opened
from vaejax.training.recovery import MAX_ROLLBACKS, recovered, slowed
from vaejax.training.replay import explain_not_finite
from vaejax.training.same_data import remember_names
from vaejax.training.saved_meta import Bookkeeping, from_meta, to_meta
from vaejax.training.saved_state import to_items
from vaejax.training.state import Carry
from vaejax.training.task import Task, Values
from vaejax.training.validating import validate


class Outcome(enum.Enum):
    """How a call of `train` ended."""

    FINISHED = "finished"
    INTERRUPTED = "interrupted"


def train(
    config: Config,
    workdir: Path,
    group: Group = ALONE,
    *,
    task: Task | None = None,
    dataset: Dataset | None = None,
) -> Outcome:
    """Trains until `config.train.steps`, or until a signal asks it to stop.

    Resumes from the newest checkpoint in `workdir`, if there is one, exactly as if the run had
    never stopped. On SIGINT, SIGTERM or SIGHUP (unless ignored, as under `nohup`) in any process
    it saves a checkpoint and returns; a second SIGINT ends it at once.

    Args:
      config: the run's config.
      workdir: the run's directory; all processes must see it.
      group: the processes that train together.
      task: what to train; by default what `config` describes.
      dataset: the pictures, if they are open already; by default those of `config.data`.

    Returns:
      Whether training finished or was interrupted.

    Raises:
      UserError: the work directory holds another run, or the data is missing or changed.
      TrainingError: training diverged, or updates were not finite, still after two rollbacks.
    """
    with open_run(config, workdir, group, task=task, dataset=dataset) as run:
        return run.go()


@contextmanager
def open_run(
    config: Config,
    workdir: Path,
    group: Group = ALONE,
    *,
    task: Task | None = None,
    dataset: Dataset | None = None,
) -> Iterator["Run"]:
    """Opens a run's data, devices and checkpoints; yields the run, restored or new.

    Arguments and errors are those of `train`.
    """
    task = task or build_task(config)
    with opened(config, workdir, group, task, dataset) as parts, ExitStack() as closing:
        run = Run(parts)
        closing.callback(parts.reports.close)
        if group.index == 0:
            # Only now: a start that fails because data is missing must not claim the directory.
            save_json(workdir / "config.json", config)
            remember_names(workdir, parts.dataset)
            parts.clock.open(workdir, run.step)
            closing.callback(parts.clock.close)
        yield run


class Run:
    """The training loop of one run.

    Attributes:
      step: number of updates so far, applied or skipped.
      carry: the state after them, and the sums of the metrics since the last log.
      evaluation_due: whether the evaluation at `step` is still to be done.
    """

    step: int
    carry: Carry
    evaluation_due: bool

    def __init__(self, parts: Parts):
        """Restores the newest checkpoint, or initialises a new state."""
        self.parts, self._settings, self._clock = parts, parts.config.train, parts.clock
        self._reports, self._checkpoints = parts.reports, parts.checkpoints
        self._watchdog = Watchdog(self._settings.hang_timeout)
        self._anyone_stops = SharedFlag(parts.mesh)
        self._restore()
        self._reports.open(self.step, self.evaluation_due)

    def go(self) -> Outcome:
        """Trains to the last step, or until a signal asks to stop.

        Raises:
          TrainingError: as `train` raises it.
        """
        with stop_on_signal() as stop, self._watchdog.watching():
            return self._loop(stop)

    def _loop(self, stop: Stop) -> Outcome:
        """Runs the loop. Resuming is exact only if log, evaluation and save keep this order."""
        settings, feed, workdir = self._settings, self.parts.feed, self.parts.workdir
        if self.step < settings.steps:
            say(f"training from step {self.step} to {settings.steps} in {workdir}")
        else:
            say(f"{workdir} is at step {self.step} of config.train.steps={settings.steps}")
        started, previous_loss = time.monotonic(), None
        batches = feed.batches(self.step)
        while self.step < settings.steps or self.evaluation_due:
            self._watchdog.report()
            if self._anyone_stops.poll(stop.requested):
                return self._interrupt()
            if self.evaluation_due:
                with self._clock.phase("evaluation"):
                    self._evaluate_and_save(stop)
                continue
            with self._reports.progress.waiting(previous_loss):
                batch = next(batches)
            with self._clock.phase("compile" if previous_loss is None else "steps"):
                self.carry, loss = self.parts.train_step(self.carry, batch, *feed.resident)
                # One dispatch stays queued: the device never waits for the host, and a request to
                # stop never waits for a long queue.
                jax.block_until_ready(loss if previous_loss is None else previous_loss)
            self.step += settings.steps_per_dispatch
            self._reports.progress.advance(self.step)
            if previous_loss is None:
                say(f"first step done after {time.monotonic() - started:.1f} s")
                self._reports.progress.restart_clock()
            previous_loss = loss
            last = self.step >= settings.steps
            if (self.step % settings.log_every == 0 or last) and (trouble := self._log()):
                self._roll_back(trouble)
                batches = feed.batches(self.step)
                continue
            self.evaluation_due = self.step % settings.eval_every == 0 or last
            if self.step % settings.save_every == 0 and not self.evaluation_due:
                self._save(None)
        self._wait_for_checkpoints()
        if self.parts.group.index == 0:
            say(f"time: {summary(workdir)}")
        asked = self._anyone_stops.ask(stop.requested)
        return Outcome.INTERRUPTED if asked else Outcome.FINISHED

    def _restore(self) -> None:
        """Loads the newest checkpoint, or initialises a state if there is none."""
        self.carry, kept = restored_or_new(self.parts)
        self.evaluation_due, self._trouble_step = kept.evaluation_due, kept.trouble_step
        self._reports.lowest_loss = kept.lowest_loss
        self.step = self._saved_step = int(self.carry.state.step)

    def _log(self) -> str:
        """Reports the window; returns why the run must be rolled back, empty if it need not be."""
        diverged = self._reports.training(self.step, self.carry)
        if diverged:
            return diverged
        if self.carry.state.skipped_in_row() >= self._settings.max_skipped:
            return f"{self._settings.max_skipped} or more updates in a row were not finite"
        self._forget_rollback()
        return ""

    def _forget_rollback(self) -> None:
        """Forgets one rollback after enough updates without trouble, and raises the rate."""
        settings = self._settings
        faster = recovered(
            self.carry.state,
            settings,
            self.parts.mesh,
            step=self.step,
            trouble_step=self._trouble_step,
        )
        if faster is not None:
            self.carry, self._trouble_step = self.carry._replace(state=faster), self.step
            say(
                f"step {self.step}: {settings.rollback_memory} updates without trouble; the "
                f"learning rate climbs back to {float(faster.learning_rate_scale):.2g} of what is "
                "set"
            )

    def _evaluate_and_save(self, stop: Stop) -> None:
        """Draws pictures, validates and saves; all three stay due if asked to stop meanwhile.

        In this order: a checkpoint whose evaluation is not due promises that its metrics are
        written.
        """
        parts, nets = self.parts, self.carry.state.nets
        params = gathered({name: net.average for name, net in nets.items()}, parts.mesh)
        if parts.group.index == 0:
            parts.gallery.draw(self.step, own_copy(params), self._reports.reporter)
        values = validate(parts, self.step, params, self._goes_on(stop))
        if not self._anyone_stops.ask(stop.requested):
            self.evaluation_due = False
            if values:
                self._reports.validation(self.step, values)
            self._save(values)
        self._reports.progress.restart_clock()

    def _goes_on(self, stop: Stop) -> Callable[[], bool]:
        """Returns a function that is true until asked to stop, and reports to the watchdog."""

        def goes_on() -> bool:
            self._watchdog.report()
            return not self._anyone_stops.poll(stop.requested)

        return goes_on

    def _save(self, metrics: Values | None, *, leaving: bool = False) -> None:
        """Saves the state, unless the last updates were skipped or diverged.

        A rollback to such a state would only fail again. The last step is always saved, since no
        rollback follows it.

        Args:
          metrics: metrics of the validation at this step; None if it was not validated.
          leaving: whether the run is about to stop. It then saves in any case, and a later
            rollback deletes the checkpoint if it is marked as suspect.
        """
        suspect = self.step < self._settings.steps and self._is_suspect()
        if suspect and not leaving:
            say(f"step {self.step} is not saved: the last updates were not finite, or diverged")
            return
        parts, lowest = self.parts, self._reports.lowest_loss
        kept = Bookkeeping(self.evaluation_due, suspect, self._trouble_step, lowest)
        fingerprint = parts.dataset.fingerprint
        meta = to_meta(kept, self.step, parts.config, parts.task.builds_on, fingerprint)
        with self._clock.phase("checkpoints"):
            self._checkpoints.save(self.step, to_items(self.carry), meta, metrics)
        # `save` has waited for the checkpoint before this one, which is now on disk.
        self._clock.note(self.step, saved=self._saved_step)
        self._saved_step = self.step
        self._reports.progress.restart_clock()

    def _interrupt(self) -> Outcome:
        if self.step > self._saved_step or not self._checkpoints.steps():
            self._save(None, leaving=True)
        self._wait_for_checkpoints()
        return Outcome.INTERRUPTED

    def _is_suspect(self) -> bool:
        """Whether the last updates were skipped or diverged, so that a rollback may follow."""
        skipped = self.carry.state.skipped_in_row() > 0
        return skipped or self._reports.has_diverged(self.step, self.carry)

    def _wait_for_checkpoints(self) -> None:
        with self._clock.phase("checkpoints"):
            self._checkpoints.wait()
        self._clock.note(self.step, saved=self._saved_step)

    def _roll_back(self, trouble: str) -> None:
        """Goes back to the newest sound checkpoint with a smaller learning rate.

        Args:
          trouble: the reason, for messages.

        Raises:
          TrainingError: the run has been rolled back `MAX_ROLLBACKS` times already.
        """
        self._wait_for_checkpoints()
        failed, rollbacks = self.step, int(self.carry.state.rollbacks) + 1
        if rollbacks > MAX_ROLLBACKS:
            self._give_up(trouble)
        for at in self._checkpoints.steps():
            if self.parts.group.agree("suspect" if self._is_suspected(at) else ""):
                self._checkpoints.delete(at)
        del self.carry  # a device may not have room for two states
        self._restore()
        restored, mesh = self.carry.state, self.parts.mesh
        state = slowed(restored, self._settings, mesh, rollbacks=rollbacks)
        self.carry, self._trouble_step = self.carry._replace(state=state), failed
        say(
            f"step {failed}: {trouble}; back to step {self.step} with "
            f"{float(state.learning_rate_scale):.2g} of the learning rate (rollback "
            f"{rollbacks} of {MAX_ROLLBACKS})"
        )
        self._reports.close()
        self._reports.open(self.step, self.evaluation_due)

    def _is_suspected(self, at: int) -> bool:
        """Whether a checkpoint was saved on exit amid updates that were skipped or diverged."""
        try:
            return from_meta(self._checkpoints.meta(at)).suspect
        except DamagedCheckpoint:
            return False  # `_restore` moves it aside

    def _give_up(self, trouble: str) -> NoReturn:
        """Raises TrainingError, with advice, for a run that rollbacks have not helped."""
        parts, state = self.parts, self.carry.state
        if state.skipped_in_row():
            params = {name: net.params for name, net in state.nets.items()}
            params = own_copy(gathered(params, parts.mesh))
            arrays = parts.arrays["train"]
            why = explain_not_finite(parts.task, self._settings, params, arrays, self.step - 1)
        else:
            why = parts.task.advice()
        self.parts.group.leave()
        raise TrainingError(
            f"step {self.step}: {trouble}, still after {MAX_ROLLBACKS} rollbacks; {why}"
        )
