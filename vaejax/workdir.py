"""The work directory of a run: whose it is."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from vaejax.checkpoints import saved
from vaejax.config import RUN_MARK, Config
from vaejax.errors import UserError
from vaejax.processes import ALONE, Group
from vaejax.reporting import last_step
from vaejax.settings import differences, load_json

_LOCK = ".lock"


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
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"--workdir={workdir} cannot be made ({error.strerror}); choose another"
        ) from error
    lock = FileLock(workdir / _LOCK, timeout=0, is_singleton=True)
    try:
        lock.acquire()
        (workdir / RUN_MARK).touch()
    except Timeout as error:
        raise UserError(
            f"another process is training in {workdir}; wait for it, or choose another --workdir"
        ) from error
    except OSError as error:
        raise UserError(
            f"--workdir={workdir} cannot be written ({error.strerror}); choose another"
        ) from error
    return lock


def check_nothing_lost(workdir: Path, save_every: int) -> None:
    """Raises UserError if the metrics tell of checkpoints that are gone.

    By the second save the first is on disk; before, a run may have been killed without any.
    """
    reached = last_step(workdir / "metrics.jsonl")
    if reached >= 2 * save_every:
        raise UserError(
            f"{workdir} holds the metrics of {reached} steps but no checkpoint to go on from; "
            "put its checkpoints back, or choose another --workdir"
        )


def check_same_run(workdir: Path, old: Config, new: Config) -> None:
    """Raises UserError if `new` is another run than `old`, which `workdir` holds."""
    changed = differences(old, new)
    if changed:
        raise UserError(
            f"{workdir} holds a run with another config ({'; '.join(changed[:4])}); "
            "choose another --workdir, or remove this one"
        )


def check_same_data(workdir: Path, old: dict, new: dict) -> None:
    """Raises UserError if the data's fingerprint is not that of the training."""
    changed = [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]
    if changed:
        raise UserError(
            f"the data is not what {workdir} was trained on ({', '.join(changed)} differ); "
            "restore the data, or choose a new --workdir"
        )
