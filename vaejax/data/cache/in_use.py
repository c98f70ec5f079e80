"""Tells when a cache was last used, and whether it is in use: its users lock a file in it."""

import contextlib
import os
import pathlib
import sys

# On Windows files in use cannot be removed anyway.
if sys.platform != "win32":
    import fcntl

USED = "last_used"

# Open files with a shared lock. They stay open until the process ends: the arrays are
# memory-mapped, and their owner may map them again.
_held: dict[pathlib.Path, int] = {}


def mark_used(folder: pathlib.Path) -> None:
    """Marks a cache as in use, from now until this process ends.

    A cache that cannot be written or locked stays unmarked: it can be used all the same.
    """
    with contextlib.suppress(OSError):
        (folder / USED).touch()
    with contextlib.suppress(OSError):
        file = os.open(folder / USED, os.O_RDONLY)
        try:
            if sys.platform != "win32":
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            os.close(file)
            raise
        before = _held.pop(folder, None)  # may belong to a cache that was removed since
        _held[folder] = file
        if before is not None:
            os.close(before)  # only now: a lock that was let go of first would allow its removal


def last_used(folder: pathlib.Path) -> float:
    """Returns when a cache was last opened, or else built, in seconds since 1970."""
    mark = folder / USED
    return (mark if mark.exists() else folder).stat().st_mtime


def is_used(folder: pathlib.Path) -> bool:
    """Returns whether a process uses a cache now.

    Always False where the file system has no locks, and on Windows.
    """
    if sys.platform == "win32" or not (folder / USED).exists():
        return False
    with open(folder / USED, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
    return False
