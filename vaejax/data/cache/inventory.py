"""What is cached on disk, decoded pictures and compiled programs: listed, and removed."""

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
from vaejax.data.cache.store import BUILDING, KEY
from vaejax.errors import UserError
from vaejax.runtime.program_cache import locked_programs, used_file

_DAY = 24 * 60 * 60


class Stored(NamedTuple):
    """Something that can be made again.

    Attributes:
      what: in words.
      path: path of its folder, or of the folder that its files are in.
      size: bytes.
      used: when it was last used, in seconds since 1970.
    """

    what: str
    path: Path
    size: int
    used: float


def pictures(root: Path) -> list[Stored]:
    """The caches of decoded pictures in a directory, the last used first."""
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
    """The compiled programs in JAX's directory for them, the last used first."""
    found = []
    for path in folder.glob("*-cache"):
        with contextlib.suppress(OSError):
            used = used_file(path)
            seconds = (used if used.exists() else path).stat().st_mtime
            found.append(Stored("compiled program", path, path.stat().st_size, seconds))
    return sorted(found, key=lambda stored: -stored.used)


def table(root: Path, programs_folder: Path) -> list[dict[str, Any]]:
    """What is cached, a row each; compiled programs are one."""
    rows = [(stored.what, stored.size, stored.used, stored.path) for stored in pictures(root)]
    if compiled := programs(programs_folder):
        size = sum(stored.size for stored in compiled)
        what = f"{len(compiled):,} compiled programs"
        rows.append((what, size, compiled[0].used, programs_folder))
    return [
        {
            "what": what,
            "MB": size / 1e6,
            "last used": time.strftime("%Y-%m-%d", time.localtime(used)),
            "path": str(path),
        }
        for what, size, used, path in rows
    ]


def days_of(text: str) -> int:
    """How long something must have been unused to be removed: "30d", or "all" for any time.

    Raises:
      UserError: it is neither.
    """
    if text == "all":
        return 0
    if not re.fullmatch(r"\d{1,6}d", text):
        raise UserError(f"--prune={text} is no number of days such as 30d, nor all")
    return int(text[:-1])


def prune(root: Path, programs_folder: Path, days: int) -> Iterator[tuple[Stored, str]]:
    """Removes what was not used for so many days, except what is used now.

    Args:
      root: a directory of caches of decoded pictures.
      programs_folder: JAX's directory of compiled programs.
      days: unused for.

    Returns:
      What was old enough, as it goes, each with why it had to stay; "" if it is gone.
    """
    before = time.time() - days * _DAY
    for stored in pictures(root):
        if stored.used <= before:
            yield stored, _remove_pictures(root, stored.path)
    old = [stored for stored in programs(programs_folder) if stored.used <= before]
    if old:
        try:
            with locked_programs(programs_folder):
                for stored in old:
                    stored.path.unlink(missing_ok=True)
                    used_file(stored.path).unlink(missing_ok=True)
                    yield stored, ""
        except (OSError, NotImplementedError) as error:
            yield old[0], f"compiled programs: {_reason(error)}"


def _remove_pictures(root: Path, folder: Path) -> str:
    key = folder.name.removesuffix(BUILDING)
    try:
        with filelock.FileLock(root / f"{key}.lock", timeout=0):
            if in_use.is_used(folder):
                return "in use"
            # Under this name nobody takes what is left of it for a cache.
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
    """Source, count, size and crop of the pictures."""
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
