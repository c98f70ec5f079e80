"""The work directory of a run: whose it is."""

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
# What file systems without locks answer.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL)


@contextmanager
def claim(workdir: Path, config: Config, group: Group = ALONE) -> Iterator[None]:
    """Makes the work directory this run's own, or finds that it is, and keeps others out.

    A process may claim what it holds already. Of a group, process 0 holds it for all.

    Raises:
      UserError: it cannot be made or written, holds another run, or is in use.
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
    """Holds the lock of the work directory.

    Raises:
      UserError: somebody else does, or the directory cannot be made or written.
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
            # A lock file without the system's help would outlive a killed run and keep it out.
            say(
                f"the file system of {workdir} knows no locks; see to it that nobody else trains "
                "there"
            )
            (workdir / _LOCK).touch()
            return lock
        raise UserError(
            f"--workdir={workdir} cannot be written ({short_reason(error)}); choose another"
        ) from error
    return lock


def check_nothing_lost(workdir: Path, save_every: int) -> None:
    """Raises UserError if the run's files tell of checkpoints that are gone.

    Of a run of version 0.1 only its metrics tell: by the second save the first is on disk.
    """
    saved = last_saved(workdir)
    if saved is None:
        reached = last_step(workdir / "metrics.jsonl")
        saved = reached if reached >= 2 * save_every else 0
    if saved:
        raise UserError(
            f"{workdir} has saved step {saved} and holds no checkpoint to go on from; put its "
            "checkpoints back, or choose another --workdir"
        )


def check_same_run(workdir: Path, old: Config, new: Config) -> None:
    """Raises UserError if `new` is another run than `old`, which `workdir` holds."""
    changed = differences(old, new)
    if changed:
        raise UserError(
            f"{workdir} holds a run with another config ({'; '.join(changed[:4])}); "
            "choose another --workdir, or remove this one"
        )
