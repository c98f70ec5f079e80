"""Where a run goes on: at its newest checkpoint that is sound."""

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
from vaejax.records.workdir import check_same_run
from vaejax.runtime.processes import Group
from vaejax.training.same_data import check_same_data
from vaejax.training.saved_state import from_items, items_like
from vaejax.training.state import Carry, TrainState, Window

CHECKPOINTS = "checkpoints"
# In what is saved beside a state: what it has from an earlier stage.
BUILDS_ON = "builds_on"
_RESTORE_DATA = "make the data what it was, or choose a new --workdir to train on what it is now"


def open_checkpoints(workdir: Path, best_by: str, keep: int, group: Group) -> Checkpoints:
    """The checkpoints of a run, to go on from and to add to.

    A damaged validation figure is reported and moved away: its checkpoint is still good. One that
    was about to be replaced is taken back, and one that a killed run had begun is removed.

    Args:
      workdir: work directory of the run.
      best_by: the validation figure that decides which is the best.
      keep: the newest that are kept.
      group: the processes, which all open them.
    """
    if group.index == 0:
        remove_unfinished(workdir / CHECKPOINTS)
        settle_replaced(workdir / CHECKPOINTS)
        for path in unreadable_metrics(workdir / CHECKPOINTS, best_by):
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
    """The newest state that can be read, its window if that is there, and what was saved beside.

    None if there is no checkpoint yet.

    Newer ones that are damaged are reported and set aside.

    Args:
      checkpoints: checkpoints of the run.
      like: shapes of the state and of its window.
      shardings: where each of its arrays is to lie, whatever devices it was saved from.
      config: config of the run, to which the checkpoint must belong.
      builds_on: what the task has from an earlier stage, likewise.
      dataset: to train on, likewise.
      workdir: work directory of the run.
      group: the processes, which all come to the same answer.

    Raises:
      UserError: there are checkpoints, and none can be read; or they are another run's.
    """

    def read(reader: Checkpoints, at: int) -> tuple[dict[str, PyTree], dict]:
        meta = reader.meta(at)
        check_same_run(workdir, resolve_saved(meta["config"]), config)
        check_same_data(workdir, meta["data"], dataset, _RESTORE_DATA)
        # Runs of version 0.1 build on nothing.
        if meta.get(BUILDS_ON, {}) != builds_on:
            raise UserError(
                f"{workdir} builds on {meta[BUILDS_ON]}, and there is {dict(builds_on)} now; "
                "remove it to train this stage anew"
            )
        return reader.restore(at, *items_like(reader, at, like, shardings)), meta

    damaged: dict[int, str] = {}
    # Each on its own: where one cannot read its part, Orbax would have the others wait for it.
    with closing(Checkpoints(workdir / CHECKPOINTS, read_only=True)) as reader:
        # By the steps that all have agreed on: a shared folder may be listed later here than there.
        for at in reversed(checkpoints.steps()):
            found = None  # two states may be more than a device holds
            found, damage = _attempt(group, read, reader, at)
            if not damage:
                # Only now: the devices add up what all processes have read.
                _, damage = _attempt(group, reader.verify, at, found[0])
            if not damage:
                _set_aside(checkpoints, damaged, workdir, group)
                items, meta = found
                return from_items(items), meta
            damaged[at] = damage
    with group.together():
        if damaged:
            raise UserError(
                f"{'; '.join(damaged.values())}; there is no other to go on from. Nothing was "
                "changed: put one back, or choose another --workdir to begin anew"
            )
    return None


def _attempt(group: Group, function: Callable, *arguments: Any) -> tuple[Any, str]:
    """What `function` returns, and what damage any process has met; empty if none has."""
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
    """Clears damaged checkpoints out of the way of those to come."""
    for at, damage in damaged.items():
        if group.index == 0:
            moved = _move_aside(checkpoints.path(at), workdir)
            say(f"{damage}; moved to {moved}, going on from the one before")
    if damaged:
        group.agree("")  # waits for process 0
        checkpoints.reload()


def _move_aside(path: Path, workdir: Path) -> Path:
    """Moves a file or folder from among the checkpoints to `damaged/`, and says where it is."""
    aside = workdir.absolute() / "damaged"
    aside.mkdir(exist_ok=True)
    name = "-".join(path.absolute().relative_to(workdir.absolute() / CHECKPOINTS).parts)
    taken = len(list(aside.glob(f"{name}.*")))
    return path.rename(aside / f"{name}.{taken}")
