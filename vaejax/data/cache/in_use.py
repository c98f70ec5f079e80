"""When a cache was last used, and whether it is now: by a file in it that its users lock."""

import contextlib
import os
import pathlib
import sys

# On Windows files in use cannot be removed anyway.
if sys.platform != "win32":
    import fcntl

USED = "last_used"

# Until the process ends: the arrays are mapped, and whoever has them may map them again.
_held: dict[pathlib.Path, int] = {}


def mark_used(folder: pathlib.Path) -> None:
    """Notes that a cache is used, from now until this process ends.

    Nothing is noted where the cache cannot be written or locked: it can be used all the same.
    """
    with contextlib.suppress(OSError):
        (folder / USED).touch()
    with contextlib.suppress(OSError):
        file = os.open(folder / USED, os.O_RDONLY)
        before = _held.pop(folder, None)  # may be of a cache that was removed since
        _held[folder] = file
        if before is not None:
            os.close(before)
        if sys.platform != "win32":
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)


def last_used(folder: pathlib.Path) -> float:
    """When a cache was last opened, or else built, in seconds since 1970."""
    mark = folder / USED
    return (mark if mark.exists() else folder).stat().st_mtime


def is_used(folder: pathlib.Path) -> bool:
    """Whether a process uses a cache now; False where the file system has no locks."""
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
