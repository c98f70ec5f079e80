"""Claims the work directory of a run, and checks which run it holds."""

import errno
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from vaejax.config import Config
from vaejax.config.saved import load_json
from vaejax.config.settings import differences
from vaejax.errors import UserError, short_reason
from vaejax.files.paths import RUN_MARK
from vaejax.records.checkpoint_files import saved
from vaejax.records.goodput import last_saved
from vaejax.records.metric_log import last_step
from vaejax.records.progress import say
from vaejax.runtime.processes import ALONE, Group

_LOCK = ".lock"
# Errors of file systems that do not support locks.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL)


@contextmanager
def claim(workdir: Path, config: Config, group: Group = ALONE) -> Iterator[None]:
    """Claims the work directory for this run within the block, and locks other processes out.

    The directory is created if it does not exist. A process may claim one that it holds already. In
    a group, process 0 holds the lock for all.

    Args:
      workdir: work directory of the run.
      config: config of the run; a run with checkpoints in `workdir` must have the same.
      group: the processes of the run, which all call it.

    Raises:
      UserError: the directory cannot be created or written, holds another run, or is in use.
    """
    with ExitStack() as held:
        with group.together():
            if group.index == 0:
                held.callback(_lock(workdir).release)
        with group.together():
            if not (workdir / _LOCK).exists():
                raise UserError(
                    f"--workdir={workdir} is not what process 0 sees; put it on storage that all "
                    "machines share"
                )
            path = workdir / "config.json"
            # A run without a checkpoint has nothing to lose: its config may still change.
            if path.exists() and saved(workdir / "checkpoints"):
                check_same_run(workdir, load_json(path), config)
        yield


def _lock(workdir: Path) -> FileLock:
    """Acquires the lock of the work directory, which is created if it does not exist.

    Raises:
      UserError: another process holds it, or the directory cannot be created or written.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"--workdir={workdir} cannot be made ({short_reason(error)}); choose another"
        ) from error
    lock = FileLock(workdir / _LOCK, timeout=0, is_singleton=True)
    try:
        (workdir / RUN_MARK).touch()
        lock.acquire()
    except Timeout as error:
        raise UserError(
            f"another process is training in {workdir}; wait for it, or choose another --workdir"
        ) from error
    except (OSError, NotImplementedError) as error:
        if isinstance(error, NotImplementedError) or error.errno in _NO_LOCKS:
            # A lock by the mere existence of a file would outlive a killed run and keep it out.
            say(
                f"the file system of {workdir} does not support locks; make sure that no other "
                "process trains there"
            )
            (workdir / _LOCK).touch()
            return lock
        raise UserError(
            f"--workdir={workdir} cannot be written ({short_reason(error)}); choose another"
        ) from error
    return lock


def check_nothing_lost(workdir: Path, save_every: int) -> None:
    """Raises UserError if the run's files show that its checkpoints are gone.

    It is called where there is no checkpoint. A run of version 0.1 recorded only metrics: by its
    second save, the first one was on disk.

    Args:
      workdir: work directory of the run.
      save_every: updates between two checkpoints.
    """
    step = last_saved(workdir)
    if step is None:
        reached = last_step(workdir / "metrics.jsonl")
        step = reached if reached >= 2 * save_every else 0
    if step:
        raise UserError(
            f"{workdir} has saved step {step} and holds no checkpoint to go on from; put its "
            "checkpoints back, or choose another --workdir"
        )


def check_same_run(workdir: Path, old: Config, new: Config) -> None:
    """Raises UserError if two configs differ in a setting that must not change in a run.

    Args:
      workdir: work directory of the run.
      old: config of the run that `workdir` holds.
      new: config of the run that is to be trained.
    """
    changed = differences(old, new)
    if changed:
        raise UserError(
            f"{workdir} holds a run with another config ({'; '.join(changed[:4])}); "
            "choose another --workdir, or remove this one"
        )
