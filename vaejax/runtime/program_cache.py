"""Keeps compiled programs on disk: sets up JAX's persistent cache, removes damaged entries."""

import contextlib
import glob
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
from filelock import FileLock, Timeout

from vaejax.errors import UserError
from vaejax.files.paths import user_cache

PROGRAMS_BYTES = 2 << 30
"""The most bytes that compiled programs may take on disk."""

# JAX's warning about a program on disk that it cannot read, or could not write completely.
_TORN = re.compile(r"Error (reading|writing) persistent compilation cache entry for '([^']+)'")


def programs_folder() -> Path:
    """Returns the directory of compiled programs, unless the user has set another.

    Raises:
      UserError: there is no home directory.
    """
    return user_cache() / "xla"


def keep_compiled_programs() -> None:
    """Turns on JAX's persistent compilation cache, in `programs_folder`.

    A directory that the user has set is used instead, with the user's limit. In `programs_folder`
    the least recently used programs are removed beyond `PROGRAMS_BYTES`, if it can be locked.
    Without a home directory there is no cache.
    """
    # JAX adds its settings when it is imported, so its type stubs lack them.
    if jax.config.jax_compilation_cache_dir is None:  # type: ignore[attr-defined]
        with contextlib.suppress(UserError):
            folder = programs_folder()
            jax.config.update("jax_compilation_cache_dir", str(folder))
            # With a limit, JAX locks the directory; if it cannot, it keeps nothing at all.
            if _tidied(folder):
                jax.config.update("jax_compilation_cache_max_size", PROGRAMS_BYTES)
    if directory := jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]
        _replace_torn_programs(Path(directory))


def _replace_torn_programs(directory: Path) -> None:
    """Removes a damaged program when JAX warns of it, so that its replacement is kept.

    JAX writes programs in place and never overwrites one: at every start it would warn of one that
    a kill or a full disk has truncated, and compile it anew. The warning does not help the user, so
    it is not shown.
    """
    show = warnings.showwarning

    def show_or_remove(message: Warning | str, *where: Any, **more: Any) -> None:
        torn = _TORN.match(str(message))
        if not torn:
            show(message, *where, **more)
            return
        # The warning has only the name: other programs of that name are compiled again as well.
        for path in directory.glob(f"{glob.escape(torn[2])}-*"):
            path.unlink(missing_ok=True)

    warnings.showwarning = show_or_remove


def _tidied(folder: Path) -> bool:
    """Removes incomplete programs; returns False if the directory cannot be locked.

    JAX records the time of use only after it has written a program, and never repairs one that it
    cannot read; a program without that record would also keep it from making room for others.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked_programs(folder):
            for path in folder.glob("*-cache"):
                if not used_file(path).exists() or not path.stat().st_size:
                    path.unlink()
    except Timeout:
        return True  # another process holds the lock
    except (OSError, NotImplementedError):
        return False
    return True


@contextlib.contextmanager
def locked_programs(folder: Path) -> Iterator[None]:
    """Keeps JAX, in any process, from reading and writing compiled programs within the block.

    This holds for processes in which JAX limits the size of the cache: only then it locks it.

    Args:
      folder: directory of the compiled programs.

    Raises:
      Timeout: another process holds the lock for more than a second.
      OSError, NotImplementedError: the directory cannot be locked.
    """
    with FileLock(folder / ".lockfile", timeout=1):
        yield


def used_file(program: Path) -> Path:
    """Returns the file beside a compiled program in which JAX records when it last used it."""
    return program.with_name(program.name.removesuffix("-cache") + "-atime")
