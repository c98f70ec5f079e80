"""Resumes a run from its newest checkpoint that is not damaged."""

from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from jaxtyping import PyTree

from vaejax.config import Config
from vaejax.config.saved import resolve_saved
from vaejax.data import Dataset
from vaejax.errors import DamagedCheckpoint, UserError
from vaejax.records.checkpoint_files import (
    remove_unfinished,
    settle_replaced,
    unreadable_metrics,
)
from vaejax.records.checkpoints import Checkpoints
from vaejax.records.progress import say
from vaejax.records.ranking import Ranking
from vaejax.records.workdir import check_same_run
from vaejax.runtime.processes import Group
from vaejax.training.same_data import check_same_data
from vaejax.training.saved_meta import BUILDS_ON
from vaejax.training.saved_state import from_items, items_like
from vaejax.training.state import Carry, TrainState, Window

CHECKPOINTS = "checkpoints"
_RESTORE_DATA = "make the data what it was, or choose a new --workdir to train on what it is now"


def open_checkpoints(workdir: Path, best_by: Ranking, keep: int, group: Group) -> Checkpoints:
    """Opens the checkpoints of a run, to resume from and to add to.

    Cleans up first what a killed run left. A damaged file of validation metrics is reported and
    moved away, while its checkpoint stays. A checkpoint whose replacement was not finished is put
    back, and one that was not written completely is removed.

    Args:
      workdir: the run's directory.
      best_by: decides which checkpoint is the best.
      keep: how many of the newest checkpoints are kept, beside the best.
      group: the run's processes, all of which call this.

    Raises:
      UserError: the directory cannot be made or listed.
    """
    if group.index == 0:
        remove_unfinished(workdir / CHECKPOINTS)
        settle_replaced(workdir / CHECKPOINTS)
        for path in unreadable_metrics(workdir / CHECKPOINTS, best_by.metric):
            moved = _move_aside(path, workdir)
            say(f"{path} is damaged; moved to {moved}, that step counts as not validated")
    group.agree("")  # waits for process 0
    return Checkpoints(workdir / CHECKPOINTS, best_by=best_by, keep=keep)


def restore_newest(
    checkpoints: Checkpoints,
    like: Carry,
    shardings: Carry,
    *,
    config: Config,
    builds_on: Mapping[str, Any],
    dataset: Dataset,
    workdir: Path,
    group: Group,
) -> tuple[tuple[TrainState, Window | None], dict] | None:
    """Restores the newest checkpoint that is not damaged.

    Damaged checkpoints that are newer are reported and moved to `damaged/`.

    Args:
      checkpoints: the run's checkpoints.
      like: shapes of the state and of its window.
      shardings: the sharding of each array of `like`, whatever devices it was saved from.
      config: the run's config, which must agree with the checkpoint's.
      builds_on: what the task takes from an earlier stage; must be what the checkpoint says.
      dataset: the data to train on; must be what the checkpoint was trained on.
      workdir: the run's directory.
      group: the run's processes, all of which call this and restore the same step.

    Returns:
      ((state, window), metadata), where the window is None if the checkpoint has none that fits;
      None if there is no checkpoint yet.

    Raises:
      UserError: there are checkpoints, and none can be read; or they belong to another run.
    """

    def read(reader: Checkpoints, at: int) -> tuple[dict[str, PyTree], dict]:
        meta = reader.meta(at)
        check_same_run(workdir, resolve_saved(meta["config"]), config)
        check_same_data(workdir, meta["data"], dataset, _RESTORE_DATA)
        # Checkpoints of version 0.1 lack this key: they build on nothing.
        before = meta.get(BUILDS_ON, {})
        if before != builds_on:
            old, new = (
                {name: value for name, value in one.items() if other.get(name) != value}
                for one, other in ((before, builds_on), (builds_on, before))
            )
            raise UserError(
                f"{workdir} was trained on the output of {old}, and there is {new} now; remove it "
                "to train this stage anew"
            )
        return reader.restore(at, *items_like(reader, at, like, shardings)), meta

    damaged: dict[int, str] = {}
    # Each process reads alone: if one failed in a joint read, Orbax would have the others wait.
    with closing(Checkpoints(workdir / CHECKPOINTS, read_only=True)) as reader:
        # The steps on which all processes agree: one machine may see the files of a shared folder
        # later than another.
        for at in reversed(checkpoints.steps()):
            found = None  # a device may not have room for two states
            found, damage = _attempt(group, read, reader, at)
            if not damage:
                # Only now that all have read: the digest is summed over all devices.
                _, damage = _attempt(group, reader.verify, at, found[0])
            if not damage:
                _set_aside(checkpoints, damaged, workdir, group)
                items, meta = found
                return from_items(items), meta
            damaged[at] = damage
    with group.together():
        if damaged:
            raise UserError(
                f"{'; '.join(damaged.values())}; no undamaged checkpoint is left. Nothing was "
                "changed: put one back, or choose another --workdir to begin anew"
            )
    return None


def _attempt(group: Group, function: Callable, *arguments: Any) -> tuple[Any, str]:
    """Returns the result of `function`, and the damage that any process found; empty if none."""
    found, damage = None, ""
    with group.together():
        try:
            found = function(*arguments)
        except DamagedCheckpoint as error:
            damage = str(error)
    return found, group.agree(damage)


def _set_aside(
    checkpoints: Checkpoints, damaged: dict[int, str], workdir: Path, group: Group
) -> None:
    """Moves damaged checkpoints away, so that later ones can be saved at their steps."""
    for at, damage in damaged.items():
        if group.index == 0:
            moved = _move_aside(checkpoints.path(at), workdir)
            say(f"{damage}; moved to {moved}, going on from the one before")
    if damaged:
        group.agree("")  # waits for process 0
        checkpoints.reload()


def _move_aside(path: Path, workdir: Path) -> Path:
    """Moves a file or folder of the checkpoints to `damaged/`, and returns its new path."""
    aside = workdir.absolute() / "damaged"
    aside.mkdir(exist_ok=True)
    name = "-".join(path.absolute().relative_to(workdir.absolute() / CHECKPOINTS).parts)
    taken = len(list(aside.glob(f"{name}.*")))
    return path.rename(aside / f"{name}.{taken}")
