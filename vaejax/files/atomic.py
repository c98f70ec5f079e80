"""Files that are there whole or not at all, also after a power cut."""

import errno
import glob
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vaejax.errors import UserError, short_reason


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to, whose file takes its place when all has gone well.

    Whoever reads `path` meanwhile, or after an error, finds what was there before. File and
    directory are forced to disk, so that a power cut leaves the old content or the new.

    Raises:
      OSError: `path` cannot be written; it names `path`.
    """
    path = Path(path)
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path)
        temporary = _temporary(path, os.getpid())
        try:
            yield temporary
            _sync(temporary)
            temporary.replace(path)
            _sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Around writing to a file: an `OSError` names it.

    Users do not know temporary files, and writing to an open file names none at all.
    """
    try:
        yield
    except OSError as error:
        error.filename, error.filename2 = str(path), None
        raise


def check_writable(path: Path, name: str, remedy: str = "name another") -> None:
    """Finds out whether `path` can be written before the work whose result it shall hold.

    Args:
      path: a file that need not be there yet; directories are made as needed.
      name: what the user calls it, such as `--out`.
      remedy: what to do where it cannot be written.

    Raises:
      UserError: it cannot be written; the message names path, reason and remedy.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise IsADirectoryError(None, "it is a directory")
        if path.exists() and not path.is_file():
            # A device such as /dev/null would be gone for good, a pipe's reader wait for ever.
            raise OSError(None, "it is no regular file")
        _probe(path)
    except OSError as error:
        raise _unwritable(path, name, remedy, error) from error


def check_directory(path: Path, name: str, remedy: str = "name another") -> None:
    """As `check_writable`, of any file in the directory `path`, which is made if need be."""
    try:
        _probe(path / "probe")
    except OSError as error:
        raise _unwritable(path, name, remedy, error) from error


def _probe(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    probe = _temporary(path, os.getpid())
    probe.touch()
    probe.unlink()


def _unwritable(path: Path, name: str, remedy: str, error: OSError) -> UserError:
    return UserError(f"{name}={path} cannot be written ({short_reason(error)}); {remedy}")


def _temporary(path: Path, process: int) -> Path:
    return path.with_name(f".{path.name}.{socket.gethostname()}.{process}")


def _remove_leftovers(path: Path) -> None:
    """Removes what processes of this machine that were killed left beside `path`."""
    prefix = _temporary(path, 0).name.removesuffix("0")
    for leftover in path.parent.glob(f"{glob.escape(prefix)}*"):
        process = leftover.name.removeprefix(prefix)
        if process.isdecimal() and not _is_alive(int(process)):
            leftover.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some file systems cannot force anything to disk, and say so.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):
            raise
    finally:
        os.close(descriptor)
