"""Compiled programs on disk: where they are kept, for how long, and what becomes of torn ones."""

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
"""That compiled programs may take on disk."""

# What JAX says of a program on disk that it cannot read, or could not write wholly.
_TORN = re.compile(r"Error (reading|writing) persistent compilation cache entry for '([^']+)'")


def programs_folder() -> Path:
    """Where compiled programs are kept unless the user says where.

    Raises:
      UserError: there is no home directory.
    """
    return user_cache() / "xla"


def keep_compiled_programs() -> None:
    """Compiled programs stay on disk from one run to the next, unless the user says where.

    The least recently used go where they take more than `PROGRAMS_BYTES`.
    """
    # JAX adds its settings when it is imported: its types know none of them.
    if jax.config.jax_compilation_cache_dir is None:  # type: ignore[attr-defined]
        with contextlib.suppress(UserError):
            folder = programs_folder()
            jax.config.update("jax_compilation_cache_dir", str(folder))
            # To keep within a limit JAX locks the directory, or else keeps nothing at all.
            if _tidied(folder):
                jax.config.update("jax_compilation_cache_max_size", PROGRAMS_BYTES)
    if directory := jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]
        _replace_torn_programs(Path(directory))


def _replace_torn_programs(directory: Path) -> None:
    """From here on a torn program is removed, so that the one compiled in its place is kept.

    JAX writes programs in place and never over what is there: of one that a kill or a full disk
    has cut off it would complain at every start, and compile it anew each time. Nobody is helped by
    being told.
    """
    show = warnings.showwarning

    def show_or_remove(message: Warning | str, *where: Any, **more: Any) -> None:
        torn = _TORN.match(str(message))
        if not torn:
            show(message, *where, **more)
            return
        # JAX says no more than its name; others of that name are made again as well.
        for path in directory.glob(f"{glob.escape(torn[2])}-*"):
            path.unlink(missing_ok=True)

    warnings.showwarning = show_or_remove


def _tidied(folder: Path) -> bool:
    """Removes programs whose writing did not end; False where the directory cannot be locked.

    JAX notes when a program was used after it has written it, and never repairs one that it
    cannot read; those without a note would also keep it from making room for others.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked_programs(folder):
            for path in folder.glob("*-cache"):
                if not used_file(path).exists() or not path.stat().st_size:
                    path.unlink()
    except Timeout:
        return True  # another process is at it
    except (OSError, NotImplementedError):
        return False
    return True


@contextlib.contextmanager
def locked_programs(folder: Path) -> Iterator[None]:
    """Keeps JAX, in any process, from reading and writing compiled programs.

    Raises:
      Timeout: another process is at it.
      OSError, NotImplementedError: the directory cannot be locked.
    """
    with FileLock(folder / ".lockfile", timeout=1):
        yield


def used_file(program: Path) -> Path:
    """The file beside a compiled program that JAX writes when it uses it."""
    return program.with_name(program.name.removesuffix("-cache") + "-atime")
