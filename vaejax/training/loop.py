"""The host loop: restore, step, log, evaluate, save, stop."""

import dataclasses
import enum
import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import takewhile
from pathlib import Path
from typing import Any, NoReturn

import jax
from jaxtyping import PyTree

from vaejax import data
from vaejax.config import Config
from vaejax.config.settings import common, save_json
from vaejax.data.feed import pipeline
from vaejax.data.feed.subsets import random_rows
from vaejax.data.lazy_tensorflow import import_tensorflow_meanwhile
from vaejax.errors import TrainingError
from vaejax.records.goodput import Clock, summary
from vaejax.records.progress import say
from vaejax.records.versions import REMEDY, tell_of_other_versions, versions
from vaejax.records.workdir import check_nothing_lost, claim
from vaejax.runtime.mesh import (
    SharedFlag,
    device_memory,
    fitting_fsdp,
    gathered,
    make_mesh,
    own_copy,
    round_up,
    state_shardings,
)
from vaejax.runtime.processes import ALONE, Group
from vaejax.runtime.signals import Stop, stop_on_signal
from vaejax.runtime.watchdog import Watchdog
from vaejax.tasks import build_task
from vaejax.training import step
from vaejax.training.feeding import Feed
from vaejax.training.preflight import check_enough, check_room
from vaejax.training.recovery import MAX_ROLLBACKS, advice, recovered, slowed
from vaejax.training.replay import explain_not_finite
from vaejax.training.reports import Reports
from vaejax.training.resuming import open_checkpoints, restore_newest
from vaejax.training.same_data import remember_names
from vaejax.training.saved_state import to_items
from vaejax.training.state import Carry, empty_window, shapes, starting

# In what is saved beside a state: its evaluation is still to be done; it was saved on the way out,
# among updates that failed; the step of the last trouble; and the lowest loss, None before any.
DUE, SUSPECT, TROUBLE, LOWEST = "evaluation_due", "suspect", "trouble_step", "lowest_loss"


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
      TrainingError: training diverged, or its loss was not finite, after two rollbacks.
    """
    with open_run(config, workdir, group) as run:
        return run.go()


@contextmanager
def open_run(config: Config, workdir: Path, group: Group = ALONE) -> Iterator["Run"]:
    """A run whose data, devices and checkpoints are open; arguments and errors as `train` has."""
    # Opening may take minutes and leaves nothing half done: a signal ends it at once.
    with (
        claim(workdir, config, group),
        ExitStack() as opened,
        # Within: where one process fails, what others would have to finish too is not waited for.
        group.watching(),
    ):
        yield Run(config, workdir, group, opened)


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
        self.carry: Carry
        self.step: int
        self.evaluation_due: bool
        self.config, self.workdir, self.group = config, workdir, group
        group.check_alike(versions(), remedy=REMEDY)
        group.check_alike(common(config))
        self.task = build_task(config)
        self.shapes = shapes(self.task)
        memory = group.least(device_memory())
        with group.together():
            fsdp = config.train.fsdp or fitting_fsdp(self.shapes, memory, jax.local_device_count())
            self.mesh = make_mesh(config.train.batch_size, fsdp, accumulate=config.train.accumulate)
            self.dataset = data.open_dataset(config.data)
            check_enough(config, self.dataset)
            if group.index == 0:
                check_room(workdir, self.shapes)
        group.check_alike(self.dataset.fingerprint)
        import_tensorflow_meanwhile()
        self.shardings = state_shardings(self.mesh, self.shapes)
        self.feed = Feed(config, self.dataset.splits["train"].images, self.mesh, memory)
        self.train_step = step.make_train_step(
            self.task, config.train, self.mesh, on_device=bool(self.feed.resident)
        )
        self.evaluator = self.task.evaluator(self.mesh)
        self.gallery = self.task.gallery(self.dataset, workdir / "pictures")
        self.watchdog = Watchdog(config.train.hang_timeout)
        speaks = group.index == 0
        self.reports = Reports(self.task, config.train, workdir, self.clock, speaks=speaks)
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
            remember_names(workdir, self.dataset)
            self.clock.open(workdir, self.step)
            opened.callback(self.clock.close)

    def go(self) -> Outcome:
        """Trains to the end, or until a signal asks to stop."""
        with stop_on_signal() as stop, self.watchdog.watching():
            return self._loop(stop)

    def _loop(self, stop: Stop) -> Outcome:
        """The order of log, evaluate and save is part of what makes resume exact."""
        settings = self.config.train
        if self.step < settings.steps:
            say(f"training from step {self.step} to {settings.steps} in {self.workdir}")
        else:
            say(f"{self.workdir} is at step {self.step} of config.train.steps={settings.steps}")
        started, previous_loss = time.monotonic(), None
        batches = self.feed.batches(self.step)
        while self.step < settings.steps or self.evaluation_due:
            self.watchdog.report()
            if self.anyone_stops.poll(stop.requested):
                return self._interrupt()
            if self.evaluation_due:
                with self.clock.phase("evaluation"):
                    self._evaluate_and_save(stop)
                continue
            with self.reports.progress.waiting(previous_loss):
                batch = next(batches)
            with self.clock.phase("compile" if previous_loss is None else "steps"):
                self.carry, loss = self.train_step(self.carry, batch, *self.feed.resident)
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
            if (self.step % settings.log_every == 0 or last) and (trouble := self._log()):
                self._roll_back(trouble)
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
            dataset=self.dataset,
            workdir=self.workdir,
            group=self.group,
        )
        if restored:
            (state, window), meta = restored
            if window is None:
                window = jax.jit(
                    lambda: empty_window(self.task), out_shardings=self.shardings.window
                )()
            self.carry = Carry(state, window)
            self.evaluation_due = meta[DUE]
            self.trouble_step = meta.get(TROUBLE, meta["step"])
            lowest = meta.get(LOWEST)
            tell_of_other_versions(meta.get("versions", {}))
        else:
            key = jax.random.key(self.config.train.seed)
            self.carry = jax.jit(starting(self.task), out_shardings=self.shardings)(key)
            self.evaluation_due, self.trouble_step, lowest = False, 0, None
        self.reports.lowest_loss = math.inf if lowest is None else lowest
        self.step = self.saved_step = int(self.carry.state.step)

    def _log(self) -> str:
        """Reports the window, and says why the run must be rolled back; empty if it need not."""
        diverged = self.reports.training(self.step, self.carry)
        if diverged:
            return diverged
        if self.carry.state.skipped_in_row() >= self.config.train.max_skipped:
            return f"{self.config.train.max_skipped} or more updates in a row were not finite"
        self._forget_rollback()
        return ""

    def _forget_rollback(self) -> None:
        """Takes one rollback back after a long stretch without trouble."""
        settings = self.config.train
        faster = recovered(
            self.carry.state, settings, self.mesh, step=self.step, trouble_step=self.trouble_step
        )
        if faster is not None:
            self.carry, self.trouble_step = self.carry._replace(state=faster), self.step
            say(
                f"step {self.step}: {settings.rollback_memory} updates without trouble; the "
                f"learning rate climbs back to {float(faster.learning_rate_scale):.2g} of what is "
                "set"
            )

    def _evaluate_and_save(self, stop: Stop) -> None:
        """Draws the pictures, validates, and saves; leaves all three due if asked to stop.

        In this order: a checkpoint of an evaluated step promises that its metrics are written.
        """
        nets = self.carry.state.nets
        params = gathered({name: net.average for name, net in nets.items()}, self.mesh)
        if self.group.index == 0:
            self.gallery.draw(self.step, own_copy(params), self.reports.reporter)
        totals = self._validate(params, stop)
        if not self.anyone_stops.ask(stop.requested):
            self.evaluation_due = False
            values = self.evaluator.summarize(totals) if totals else None
            if values:
                self.reports.validation(self.step, values)
            self._save(values)
        self.reports.progress.restart_clock()

    def _validate(self, params: dict[str, PyTree], stop: Stop) -> Any:
        """Sums over the validation split, or over a part of it if asked to stop meanwhile."""
        if "valid" not in self.dataset.splits:
            return None
        images = self.dataset.splits["valid"].images
        batches = pipeline.eval_batches(
            images,
            chosen=random_rows(len(images), self.config.eval.pictures),
            # Padding does not count, so a larger batch gives the same numbers.
            batch_size=round_up(self.config.eval.batch_size, self.mesh),
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        return self.evaluator(params, takewhile(self._goes_on(stop), batches))

    def _goes_on(self, stop: Stop) -> Callable[[object], bool]:
        """Whether to take the next batch: until asked to stop. Each shows that things move."""

        def goes_on(_: object) -> bool:
            self.watchdog.report()
            return not self.anyone_stops.poll(stop.requested)

        return goes_on

    def _save(self, metrics: dict[str, float] | None, *, leaving: bool = False) -> None:
        """Saves the state, unless a rollback would lead back to what fails.

        On the last step no rollback follows. Whoever is `leaving` saves in any case, and a rollback
        later passes over that checkpoint.
        """
        suspect = self.step < self.config.train.steps and self._is_suspect()
        if suspect and not leaving:
            say(f"step {self.step} is not saved: the last updates were not finite, or diverged")
            return
        meta = {
            "step": self.step,
            "examples": self.step * self.config.train.batch_size,
            "config": dataclasses.asdict(self.config),
            "data": self.dataset.fingerprint,
            "versions": versions(),
            DUE: self.evaluation_due,
            SUSPECT: suspect,
            TROUBLE: self.trouble_step,
            LOWEST: self.reports.lowest_loss if math.isfinite(self.reports.lowest_loss) else None,
        }
        with self.clock.phase("checkpoints"):
            self.checkpoints.save(self.step, to_items(self.carry), meta, metrics)
        # Whatever was saved before is on disk by now.
        self.clock.note(self.step, saved=self.saved_step)
        self.saved_step = self.step
        self.reports.progress.restart_clock()

    def _interrupt(self) -> Outcome:
        if self.step > self.saved_step or not self.checkpoints.steps():
            self._save(None, leaving=True)
        self._wait_for_checkpoints()
        return Outcome.INTERRUPTED

    def _is_suspect(self) -> bool:
        """Whether the last updates were skipped, or have diverged: it is not yet known."""
        skipped = self.carry.state.skipped_in_row() > 0
        return skipped or self.reports.has_diverged(self.step, self.carry)

    def _wait_for_checkpoints(self) -> None:
        with self.clock.phase("checkpoints"):
            self.checkpoints.wait()
        self.clock.note(self.step, saved=self.saved_step)

    def _roll_back(self, trouble: str) -> None:
        """Goes back to the newest sound checkpoint with a smaller learning rate.

        Args:
          trouble: what is wrong, in words.

        Raises:
          TrainingError: this has happened too often.
        """
        self._wait_for_checkpoints()
        failed, rollbacks = self.step, int(self.carry.state.rollbacks) + 1
        if rollbacks > MAX_ROLLBACKS:
            self._give_up(trouble)
        for at in self.checkpoints.steps():
            if self.checkpoints.meta(at).get(SUSPECT):
                self.checkpoints.delete(at)
        del self.carry  # a device may have no room for two
        self._restore()
        state = slowed(self.carry.state, self.config.train, self.mesh, rollbacks=rollbacks)
        self.carry, self.trouble_step = self.carry._replace(state=state), failed
        say(
            f"step {failed}: {trouble}; back to step {self.step} with "
            f"{float(state.learning_rate_scale):.2g} of the learning rate (rollback "
            f"{rollbacks} of {MAX_ROLLBACKS})"
        )
        self.reports.close()
        self.reports.open(self.step, self.evaluation_due)

    def _give_up(self, trouble: str) -> NoReturn:
        """Ends a run that two rollbacks have not healed, and says what to look at."""
        state = self.carry.state
        if state.skipped_in_row():
            images = self.dataset.splits["train"].images
            params = {name: net.params for name, net in state.nets.items()}
            params = own_copy(gathered(params, self.mesh))
            why = explain_not_finite(self.task, self.config, params, images, self.step - 1)
        else:
            why = advice(self.config.optimizer)
        self.group.leave()
        raise TrainingError(
            f"step {self.step}: {trouble}, still after {MAX_ROLLBACKS} rollbacks; {why}"
        )
