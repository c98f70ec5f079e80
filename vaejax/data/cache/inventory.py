"""Lists and removes what is cached on disk: decoded pictures, features, compiled programs."""

import contextlib
import json
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import filelock

from vaejax.data.cache import in_use
from vaejax.data.cache.rows import FOLDER
from vaejax.data.cache.store import BUILDING, KEY
from vaejax.errors import UserError
from vaejax.runtime.program_cache import locked_programs, used_file

_DAY = 24 * 60 * 60


class Stored(NamedTuple):
    """A cache of pictures or a compiled program: it can be made again.

    Attributes:
      what: description for the user.
      path: the folder of a cache of pictures, or the file of a compiled program.
      size: size on disk in bytes.
      used: when it was last used, in seconds since 1970.
    """

    what: str
    path: Path
    size: int
    used: float


def pictures(root: Path) -> list[Stored]:
    """Lists the caches of decoded pictures in a directory, also unfinished, last used first."""
    found = []
    for folder in root.glob("*"):
        key = folder.name.removesuffix(BUILDING)
        if not KEY.fullmatch(key) or not folder.is_dir():
            continue
        with contextlib.suppress(OSError):  # another process is just removing it
            files = [path.stat() for path in folder.iterdir()]
            size = sum(status.st_size for status in files)
            found.append(Stored(_describe(folder), folder, size, in_use.last_used(folder)))
    return sorted(found, key=lambda stored: -stored.used)


def programs(folder: Path) -> list[Stored]:
    """Lists the compiled programs in JAX's compilation cache, last used first."""
    found = []
    for path in folder.glob("*-cache"):
        with contextlib.suppress(OSError):
            used = used_file(path)
            seconds = (used if used.exists() else path).stat().st_mtime
            found.append(Stored("compiled program", path, path.stat().st_size, seconds))
    return sorted(found, key=lambda stored: -stored.used)


def rows(root: Path) -> list[Stored]:
    """Lists the features of real pictures that evaluations have kept, last used first."""
    found = []
    for path in (root / FOLDER).glob("*.npy"):
        with contextlib.suppress(OSError):
            status = path.stat()
            found.append(Stored("features", path, status.st_size, status.st_mtime))
    return sorted(found, key=lambda stored: -stored.used)


def table(root: Path, programs_folder: Path) -> list[dict[str, Any]]:
    """Tabulates what is cached: a row for each cache of pictures, for all features, all programs.

    Args:
      root: directory of the caches of decoded pictures.
      programs_folder: directory of JAX's compilation cache.

    Returns:
      Rows with the columns `what`, `MB` (1e6 bytes), `last used` (local date) and `path`.
    """
    lines = [(stored.what, stored.size, stored.used, stored.path) for stored in pictures(root)]
    if kept := rows(root):
        size = sum(stored.size for stored in kept)
        lines.append(("features of real pictures", size, kept[0].used, root / FOLDER))
    if compiled := programs(programs_folder):
        size = sum(stored.size for stored in compiled)
        what = f"{len(compiled):,} compiled programs"
        lines.append((what, size, compiled[0].used, programs_folder))
    return [
        {
            "what": what,
            "MB": size / 1e6,
            "last used": time.strftime("%Y-%m-%d", time.localtime(used)),
            "path": str(path),
        }
        for what, size, used, path in lines
    ]


def days_of(text: str) -> int:
    """Parses the days for which a cache must have been unused to be removed.

    Args:
      text: a number of days, such as "30d", or "all", which means 0 days.

    Raises:
      UserError: it is neither.
    """
    if text == "all":
        return 0
    if not re.fullmatch(r"\d{1,6}d", text):
        raise UserError(f"--prune={text} must be a number of days such as 30d, or all")
    return int(text[:-1])


def prune(root: Path, programs_folder: Path, days: int) -> Iterator[tuple[Stored, str]]:
    """Removes the caches and programs that were not used for some days, except those in use.

    Args:
      root: directory of the caches of decoded pictures.
      programs_folder: directory of JAX's compilation cache.
      days: least number of days since the last use.

    Yields:
      Each that was old enough, when it has been handled, with the reason why it stays; "" if it
      was removed. One reason stands for all programs that stay.
    """
    before = time.time() - days * _DAY
    for stored in pictures(root):
        if stored.used <= before:
            yield stored, _remove_pictures(root, stored.path)
    for stored in rows(root):
        if stored.used <= before:
            try:
                stored.path.unlink(missing_ok=True)
                yield stored, ""
            except OSError as error:
                yield stored, _reason(error)
    old = [stored for stored in programs(programs_folder) if stored.used <= before]
    if old:
        try:
            with locked_programs(programs_folder):
                while old:
                    old[0].path.unlink(missing_ok=True)
                    used_file(old[0].path).unlink(missing_ok=True)
                    yield old.pop(0), ""
        except (OSError, NotImplementedError) as error:
            yield old[0], f"compiled programs: {_reason(error)}"


def _remove_pictures(root: Path, folder: Path) -> str:
    key = folder.name.removesuffix(BUILDING)
    try:
        with filelock.FileLock(root / f"{key}.lock", timeout=0):
            if in_use.is_used(folder):
                return "in use"
            # Renamed first, so that an interrupted removal leaves nothing that looks like a cache.
            leftover = folder.with_name(key + BUILDING)
            if leftover != folder:
                shutil.rmtree(leftover, ignore_errors=True)
                folder.rename(leftover)
            shutil.rmtree(leftover)
    except filelock.Timeout:
        return "in use"
    except (OSError, NotImplementedError) as error:
        return _reason(error)
    return ""


def _describe(folder: Path) -> str:
    """Describes a cache by the source, count, size and crop of its pictures."""
    try:
        data = json.loads((folder / "meta.json").read_text())["fingerprint"]
        count = sum(split["count"] for split in data["splits"].values())
        height, width = data["image_size"]
        colours = "grey" if data["channels"] == 1 else "RGB"
        crop = data["crop"]["preset"]
        return f"{data['source']}: {count:,} pictures {height}x{width} {colours}, crop {crop}"
    except (OSError, ValueError, KeyError, TypeError):
        return "unfinished or damaged"


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
