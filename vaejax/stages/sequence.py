"""Several runs in a work directory, of which each builds on those before it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from vaejax.config import Config
from vaejax.data import Dataset
from vaejax.runtime.processes import ALONE, Group
from vaejax.training.loop import Outcome, open_run
from vaejax.training.task import Task


class Stage(NamedTuple):
    """A run of its own.

    Attributes:
      config: config of its loop.
      directory: where it is kept.
      task: what is learned; its `builds_on` names what it has from the stages before.
      finish: called in process 0 when it has been trained.
    """

    config: Config
    directory: Path
    task: Task
    finish: Callable[[], None] = lambda: None


PlannedStage = Callable[[Dataset | None], Stage | None]
"""Builds a stage when its turn comes, from what those before have learned; None: it is not needed.

Its argument is the data set that the first stage has opened; None for the first.
"""


def train_in_turn(
    stages: Sequence[PlannedStage], group: Group = ALONE, dataset: Dataset | None = None
) -> tuple[Outcome, Dataset]:
    """Trains stages one after the other, until all are finished or a signal asks to stop.

    The same call goes on in the stage that was stopped: those that are finished are only opened.

    Args:
      stages: all processes have the same.
      group: the processes that train together.
      dataset: the pictures, if they are open already.

    Returns:
      How it ended, and the pictures.

    Raises:
      UserError, TrainingError: as `train` does.
      ValueError: no stage was needed, and there are no pictures.
    """
    outcome = Outcome.FINISHED
    for planned in stages:
        stage = planned(dataset)
        if stage is None:
            continue
        run_of = open_run(stage.config, stage.directory, group, task=stage.task, dataset=dataset)
        with run_of as run:
            outcome, dataset = run.go(), run.parts.dataset
        del run, run_of  # what follows shall have the devices for itself
        if outcome is Outcome.INTERRUPTED:
            break
        with group.together():
            if group.index == 0:
                stage.finish()
    if dataset is None:
        raise ValueError("no stage has opened a data set")
    return outcome, dataset
