"""Atomic writes: a file has its old or its new content, even after a power cut."""

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
    """Yields a temporary path beside `path` to write to, which replaces `path` after the block.

    Until then, and after an error, `path` keeps its old content. File and directory are forced to
    disk (fsync), so that a power cut leaves either the old content or the new. Missing parent
    directories are created.

    Raises:
      OSError: `path` cannot be written; the error names `path`.
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
    """Makes an `OSError` that is raised in the block name `path`.

    Users do not know the temporary files, and an error of writing to an open file names none.
    """
    try:
        yield
    except OSError as error:
        error.filename, error.filename2 = str(path), None
        raise


def check_writable(path: Path, name: str, remedy: str = "name another") -> None:
    """Checks that `path` can be written, before the work whose result it is to hold.

    Args:
      path: a file that need not exist; missing parent directories are created.
      name: the flag or setting that names the path, such as `--out`.
      remedy: what to do if it cannot be written.

    Raises:
      UserError: it cannot be written; the message names path, reason and remedy.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise IsADirectoryError(None, "it is a directory")
        if path.exists() and not path.is_file():
            # `replacing` would delete a device such as /dev/null, and a pipe's reader would hang.
            raise OSError(None, "it is no regular file")
        _probe(path)
    except OSError as error:
        raise _unwritable(path, name, remedy, error) from error


def check_directory(path: Path, name: str, remedy: str = "name another") -> None:
    """Checks that files can be written in the directory `path`, which is created if missing.

    Args:
      path: the directory.
      name: the flag or setting that names it, such as `--workdir`.
      remedy: what to do if no file can be written there.

    Raises:
      UserError: no file can be written there; the message names path, reason and remedy.
    """
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
    """Removes temporary files that killed processes of this machine have left beside `path`."""
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
        # Some file systems do not support fsync.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):
            raise
    finally:
        os.close(descriptor)
