"""The directory of the caches: creating it, locking, forcing writes to disk, error messages."""

import contextlib
import errno
import json
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

import filelock

from vaejax.errors import UserError, is_out_of_space, short_reason
from vaejax.records.progress import say

SETTING = "config.data.cache_dir"
"""Name of the setting by which a user can move the cache."""


class Disk:
    """A directory of caches, and the setting by which its user chooses it.

    Attributes:
      root: the directory.
      setting: name of the setting by which the user can move it, for messages.
    """

    def __init__(self, root: pathlib.Path, setting: str):
        self.root = root
        self.setting = setting

    @contextlib.contextmanager
    def usable(self) -> Iterator[None]:
        """Converts an `OSError` of this directory to a `UserError` with a message of one line.

        An error without a file name counts as this directory's; one that names a file elsewhere
        is raised unchanged.

        Raises:
          UserError: the disk is full, or the directory cannot be used.
        """
        try:
            yield
        except OSError as error:
            if isinstance(error.filename, str):
                path = pathlib.Path(error.filename)
                if not path.is_relative_to(self.root) and not self.root.is_relative_to(path):
                    raise
            raise self.failure(error) from error

    def failure(self, error: BaseException) -> UserError:
        """Describes an error met while using this directory, for the user."""
        if is_out_of_space(error):
            return UserError(f"{self} is full: free space, or name a larger disk")
        return UserError(
            f"{self} cannot be used ({short_reason(error)}): set {self.setting} to a directory "
            "that can be read and written"
        )

    @contextlib.contextmanager
    def locked(self, key: str, shown: bool) -> Iterator[None]:
        """Holds the lock of one cache; waits while another process holds it.

        A file system without locks is refused. A lock file that locks by merely existing would
        remain when its process is killed, and others would wait for it forever.

        Args:
          key: key of the cache.
          shown: whether to print a message before waiting.

        Raises:
          UserError: the directory cannot be made, written or locked.
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
        """Raises `UserError` if fewer than `needed` bytes are free for `pictures` pictures."""
        free = shutil.disk_usage(self.root).free
        if needed > free:
            raise UserError(
                f"{self} has {free / 1e6:,.1f} MB free, but {pictures:,} pictures need"
                f" {needed / 1e6:,.1f} MB: free space, or name a larger disk"
            )

    def __str__(self) -> str:
        """Formats the directory as a user would set it: `config.data.cache_dir='...'`."""
        return f"{self.setting}={str(self.root)!r}"


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes `value` as a JSON file and forces it to disk (fsync)."""
    with open(path, "w", encoding="utf-8") as file:
        json.dump(value, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


def sync_directory(folder: pathlib.Path) -> None:
    """Forces a directory's entries to disk (fsync), so that a rename in it is durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
