"""The directory that caches are kept in: made, locked, forced to disk, and blamed by name."""

import contextlib
import errno
import json
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

import filelock

from vaejax.errors import UserError, short_reason
from vaejax.records.progress import say

SETTING = "config.data.cache_dir"
"""What a user changes to have the cache elsewhere."""


class Disk:
    """A directory of caches, and what its user calls it.

    Attributes:
      root: the directory.
      setting: the name of what the user can set to have it elsewhere.
    """

    def __init__(self, root: pathlib.Path, setting: str):
        self.root = root
        self.setting = setting

    @contextlib.contextmanager
    def usable(self) -> Iterator[None]:
        """Around writing to it: tells its errors in one line, and lets through all others."""
        try:
            yield
        except OSError as error:
            if isinstance(error.filename, str):
                path = pathlib.Path(error.filename)
                if not path.is_relative_to(self.root) and not self.root.is_relative_to(path):
                    raise
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise UserError(f"{self} ran full: free space, or name a larger disk") from error
            raise UserError(
                f"{self} cannot be used ({short_reason(error)}): set {self.setting} to a"
                " directory that can be written"
            ) from error

    @contextlib.contextmanager
    def locked(self, key: str, shown: bool) -> Iterator[None]:
        """Holds the lock of one cache; waits for whoever else holds it, and says so.

        A file system without locks is refused. A mere file for a lock would stay behind where a
        process is killed, and be waited for ever after.
        """
        with self.usable():
            self.root.mkdir(parents=True, exist_ok=True)
            lock = filelock.FileLock(self.root / f"{key}.lock")
            try:
                lock.acquire(timeout=0)
            except filelock.Timeout:
                if shown:
                    place = self.root / key
                    say(f"another process is preparing these pictures; waiting for it ({place})")
                lock.acquire()
            except NotImplementedError as error:
                raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK)) from error
        try:
            yield
        finally:
            lock.release()

    def check_space(self, pictures: int, needed: float) -> None:
        """Raises `UserError` where there is less space than `needed` bytes for `pictures`."""
        free = shutil.disk_usage(self.root).free
        if needed > free:
            raise UserError(
                f"{self} has {free / 1e6:,.1f} MB free, but {pictures:,} pictures need"
                f" {needed / 1e6:,.1f} MB: free space, or name a larger disk"
            )

    def __str__(self) -> str:
        """As a user would set it."""
        return f"{self.setting}={str(self.root)!r}"


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes a file and forces it to disk."""
    with open(path, "w", encoding="utf-8") as file:
        json.dump(value, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


def sync_directory(folder: pathlib.Path) -> None:
    """Forces to disk what names a directory has."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
