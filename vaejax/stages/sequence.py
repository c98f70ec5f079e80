"""Trains several runs in one work directory, each of which builds on those before it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from vaejax.config import Config
from vaejax.data import Dataset
from vaejax.runtime.processes import ALONE, Group
from vaejax.training.loop import Outcome, open_run
from vaejax.training.task import Task


class Stage(NamedTuple):
    """A stage of a run: a training with its own config, directory and checkpoints.

    Attributes:
      config: config of the stage.
      directory: work directory of the stage.
      task: the task to train; its `builds_on` identifies what it takes from earlier stages.
      finish: called in process 0 after the training.
    """

    config: Config
    directory: Path
    task: Task
    finish: Callable[[], None] = lambda: None


PlannedStage = Callable[[Dataset | None], Stage | None]
"""Builds a stage when its turn comes, from the results of earlier stages; None if not needed.

The argument is the data set that an earlier stage or the caller has opened, or None.
"""


def train_in_turn(
    stages: Sequence[PlannedStage], group: Group = ALONE, dataset: Dataset | None = None
) -> tuple[Outcome, Dataset]:
    """Trains stages one after the other, until all are finished or a signal asks to stop.

    After an interruption the same call resumes the stage that was stopped; finished stages are
    opened but not trained again.

    Args:
      stages: the stages in order, the same on every process.
      group: the processes that train together.
      dataset: the data set, if it is already open; else the first stage opens it.

    Returns:
      Whether all stages were finished or one was interrupted, and the data set.

    Raises:
      UserError: as for `training.loop.train`.
      TrainingError: as for `training.loop.train`.
      ValueError: no stage was needed, and no data set was given.
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
