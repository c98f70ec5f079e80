"""Picture files by name, from a directory or a zip: the same names in the same order."""

import itertools
import os
import pathlib
import zipfile
from collections.abc import Callable
from typing import Any

from vaejax.errors import UserError

SUFFIXES = (
    ".jpg",
    ".jpeg",
    ".jpe",
    ".jfif",
    ".png",
    ".webp",
    ".bmp",
    ".gif",
    ".tif",
    ".tiff",
    ".ppm",
    ".pgm",
)


class PictureFiles:
    """The pictures of a directory or a zip, recursively.

    Hidden files, `__MACOSX` and other suffixes are left out. Names are relative, with forward
    slashes, sorted, and without the folders that all of them share: a zip of a folder and the
    folder itself list alike.

    Attributes:
      names: sorted list of names.
      marks: name -> what changes with the file: size and modification time, or size and CRC.
    """

    def __init__(self, path: pathlib.Path):
        if path.is_dir():
            found, self._read = _directory(path)
        else:
            found, self._read = _zip(path)
        prefix = _shared_folder(list(found))
        self._full = {name[len(prefix) :]: name for name in sorted(found)}
        self.names = list(self._full)
        self.marks = {short: found[full] for short, full in self._full.items()}

    def read(self, name: str) -> bytes:
        """The bytes of one file; may be called from several threads."""
        return self._read(self._full[name])


def _wanted(name: str) -> bool:
    parts = name.split("/")
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in parts)
    return not hidden and name.lower().endswith(SUFFIXES)


def _shared_folder(names: list[str]) -> str:
    if not names:
        return ""
    # What the first and the last in string order share, all share.
    folders = [name.split("/")[:-1] for name in (min(names), max(names))]
    shared = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(*folders))
    return "".join(f"{part}/" for part, _ in shared)


Listing = tuple[dict[str, Any], Callable[[str], bytes]]


def _directory(root: pathlib.Path) -> Listing:
    found = {}
    pending = [""]
    while pending:
        folder = pending.pop()
        with os.scandir(root / folder) as entries:
            for entry in entries:
                name = folder + entry.name
                if entry.is_dir():
                    # A link may lead back up, and round for ever.
                    if not entry.is_symlink():
                        pending.append(name + "/")
                elif _wanted(name):
                    try:
                        stat = entry.stat()
                    except OSError:  # a dangling link; reading it will say so
                        found[name] = None
                    else:
                        found[name] = [stat.st_size, stat.st_mtime_ns]
    return found, lambda name: (root / name).read_bytes()


def _zip(path: pathlib.Path) -> Listing:
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile:
        raise UserError(
            f"{path} is neither a directory nor a readable zip: give a folder or zip of pictures"
        ) from None
    found = {
        info.filename: [info.file_size, info.CRC]
        for info in archive.infolist()
        if not info.is_dir() and _wanted(info.filename)
    }
    return found, archive.read
