"""The files of a directory, as a `Tree`."""

import os
import pathlib
import stat

from vaejax.data.sources.file_tree import Entry, Unreadable, cannot


class Directory:
    """A directory. Links to files are followed; links to folders are not: they may form cycles."""

    def __init__(self, root: pathlib.Path):
        self._root = root

    def entries(self, folder: str) -> list[Entry]:
        """Lists the entries of a folder.

        Raises:
          Unreadable: the folder cannot be listed.
        """
        try:
            with os.scandir(self._root / folder) as found:
                return [self._entry(entry) for entry in found]
        except OSError as error:
            raise Unreadable(cannot(error)) from error

    def _entry(self, entry: os.DirEntry) -> Entry:
        try:
            status = entry.stat()
        except OSError as error:
            reason = "dangling link" if entry.is_symlink() else cannot(error)
            return Entry(entry.name, refusal=reason)
        if stat.S_ISDIR(status.st_mode):
            linked = "linked folder (not followed: name it in config.data.path, or copy it)"
            return Entry(entry.name, True, refusal=linked if entry.is_symlink() else "")
        if not stat.S_ISREG(status.st_mode):
            return Entry(entry.name, refusal="no regular file")
        return Entry(entry.name, False, status.st_size, [status.st_size, status.st_mtime_ns])

    def read(self, name: str, limit: int) -> bytes:
        """Reads a file's first `limit` bytes.

        Raises:
          Unreadable: it cannot be read, or is not a regular file.
        """
        # It may have become a pipe since it was listed; a plain `open` of a pipe may block forever.
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        try:
            with open(os.open(self._root / name, flags), "rb") as file:
                status = os.fstat(file.fileno())
                if not stat.S_ISREG(status.st_mode):
                    raise Unreadable("no regular file")
                return file.read(min(limit, status.st_size))
        except OSError as error:
            raise Unreadable(cannot(error)) from error
