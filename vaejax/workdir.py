"""The work directory of a run: whose it is."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from vaejax.config import Config
from vaejax.errors import UserError
from vaejax.settings import differences, load_json


@contextmanager
def claim(workdir: Path, config: Config) -> Iterator[None]:
    """Makes the work directory this run's own, or finds that it is, and keeps others out.

    Raises:
      UserError: it cannot be made or written, holds another run, or is in use.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"--workdir={workdir} cannot be made ({error.strerror}); choose another"
        ) from error
    lock = FileLock(workdir / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise UserError(
            f"another process is training in {workdir}; wait for it, or choose another --workdir"
        ) from error
    except OSError as error:
        raise UserError(
            f"--workdir={workdir} cannot be written ({error.strerror}); choose another"
        ) from error
    try:
        path = workdir / "config.json"
        if path.exists():
            old = load_json(path)
            changed = differences(old, config)
            if changed:
                raise UserError(
                    f"{workdir} holds a run with another config ({'; '.join(changed[:4])}); "
                    "choose another --workdir, or remove it"
                )
        yield
    finally:
        lock.release()
