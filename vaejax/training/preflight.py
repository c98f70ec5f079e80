"""Checks before training: is there validation data, and room for a checkpoint?"""

import shutil
from pathlib import Path

import jax
from jaxtyping import PyTree

from vaejax.data import Dataset
from vaejax.errors import UserError
from vaejax.files.atomic import check_directory
from vaejax.records.progress import say


def warn_without_validation(dataset: Dataset) -> None:
    """Prints a warning if the data has no validation split."""
    if "valid" not in dataset.splits:
        say(
            "no picture is held out: nothing is validated, and the best checkpoint is the newest; "
            "config.data.holdout=0.1,0 would hold out a tenth"
        )


def check_room(workdir: Path, state: PyTree) -> None:
    """Checks that the work directory can be written and has room for a checkpoint.

    Args:
      workdir: the run's directory.
      state: arrays or shapes of all that a checkpoint holds.

    Raises:
      UserError: it cannot be written, or has too little free space.
    """
    check_directory(workdir / "checkpoints", "--workdir", "choose another")
    needed = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    free = shutil.disk_usage(workdir).free
    if free < needed:
        raise UserError(
            f"--workdir={workdir} has {free / 1e6:,.1f} MB free, and a checkpoint needs "
            f"{needed / 1e6:,.1f} MB; make room, or choose another"
        )
