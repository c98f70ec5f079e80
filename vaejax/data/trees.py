"""What lies in a directory or a zip, folder by folder, in one form."""

import os
import pathlib
import posixpath
import stat
import zipfile
from typing import Any, NamedTuple, Protocol, runtime_checkable

from vaejax.errors import UserError


class Unreadable(Exception):
    """A file or folder that cannot be read; the message is the reason."""


class Entry(NamedTuple):
    """A file or folder within a folder.

    Attributes:
      name: without its folder.
      is_folder: whether it has entries of its own.
      size: bytes of a file.
      mark: what changes with a file: size and modification time, or size and CRC.
      refusal: why it must not be looked into; "" where it may.
    """

    name: str
    is_folder: bool = False
    size: int = 0
    mark: Any = None
    refusal: str = ""


@runtime_checkable
class Tree(Protocol):
    """Files in folders. Names are relative, with forward slashes; a folder's ends with one."""

    def entries(self, folder: str) -> list[Entry]:
        """What lies in a folder ("" is the root); raises `Unreadable`."""

    def read(self, name: str, limit: int) -> bytes:
        """A file's first `limit` bytes; raises `Unreadable`. From any thread."""


class Directory:
    """A directory. Links to files are followed; links to folders may lead round for ever."""

    def __init__(self, root: pathlib.Path):
        self._root = root

    def entries(self, folder: str) -> list[Entry]:
        """What lies in a folder; raises `Unreadable`."""
        try:
            with os.scandir(self._root / folder) as found:
                return [self._entry(entry) for entry in found]
        except OSError as error:
            raise Unreadable(_cannot(error)) from error

    def _entry(self, entry: os.DirEntry) -> Entry:
        try:
            status = entry.stat()
        except OSError as error:
            reason = "dangling link" if entry.is_symlink() else _cannot(error)
            return Entry(entry.name, refusal=reason)
        if stat.S_ISDIR(status.st_mode):
            linked = "linked folder (not followed: name it in config.data.path, or copy it)"
            return Entry(entry.name, True, refusal=linked if entry.is_symlink() else "")
        if not stat.S_ISREG(status.st_mode):
            return Entry(entry.name, refusal="no regular file")
        return Entry(entry.name, False, status.st_size, [status.st_size, status.st_mtime_ns])

    def read(self, name: str, limit: int) -> bytes:
        """A file's first `limit` bytes; raises `Unreadable`."""
        # It may have become a pipe since it was listed, at which a plain `open` waits for ever.
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        try:
            with open(os.open(self._root / name, flags), "rb") as file:
                status = os.fstat(file.fileno())
                if not stat.S_ISREG(status.st_mode):
                    raise Unreadable("no regular file")
                return file.read(min(limit, status.st_size))
        except OSError as error:
            raise Unreadable(_cannot(error)) from error


class Zip:
    """A zip. Never more of a member is read than its stated size, whatever is packed in it."""

    def __init__(self, path: pathlib.Path):
        """Opens and lists it.

        Raises:
          UserError: it is no zip, or one that Python cannot list.
        """
        self._archive = _open_zip(path)
        self._members: dict[str, zipfile.ZipInfo] = {}
        self._folders: dict[str, dict[str, Entry]] = {"": {}}
        for member in self._archive.infolist():
            self._add(member)

    def _add(self, member: zipfile.ZipInfo) -> None:
        # Windows' own tools have written backslashes; a leading ./ is no hidden folder.
        written = member.filename.replace("\\", "/")
        parts = [part for part in written.split("/") if part not in ("", ".", "..")]
        if not parts:
            return
        folder = ""
        for part in parts if written.endswith("/") else parts[:-1]:
            self._folders[folder].setdefault(part + "/", Entry(part, True))
            folder += part + "/"
            self._folders.setdefault(folder, {})
        if written.endswith("/"):
            return
        self._put(folder, parts[-1], member)

    def _put(self, folder: str, name: str, member: zipfile.ZipInfo) -> None:
        beside = self._folders[folder]
        if name in beside:
            # As unpacking would have it, the last of one name stays.
            copies = (f"{name} (copy {number})" for number in range(1, len(beside) + 1))
            copy = next(copy for copy in copies if copy not in beside)
            beside[copy] = Entry(copy, refusal="overwritten by a later member of the same name")
        mark = [member.file_size, member.CRC]
        beside[name] = Entry(name, False, member.file_size, mark, _member_refusal(member))
        self._members[folder + name] = member

    def entries(self, folder: str) -> list[Entry]:
        """What lies in a folder."""
        return list(self._folders[folder].values())

    def read(self, name: str, limit: int) -> bytes:
        """A member's first `limit` bytes; raises `Unreadable`."""
        member = self._members[name]
        wanted = min(limit, member.file_size)
        # zipfile stops deflating where it is told to; a piece of any other kind it unpacks whole.
        bounded = member.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
        pieces, got = [], 0
        try:
            with self._archive.open(member) as file:
                while piece := file.read(wanted - got if bounded else min(4096, wanted - got)):
                    pieces.append(piece)
                    got += len(piece)
        except Exception as error:  # a damaged member makes zipfile raise nearly anything
            raise Unreadable(_cannot(error)) from error
        return b"".join(pieces)


def _member_refusal(member: zipfile.ZipInfo) -> str:
    if member.flag_bits & 1:
        return "encrypted (unpack the zip and name the folder)"
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind == stat.S_IFLNK:
        return "link in a zip (not followed)"
    return "" if kind in (0, stat.S_IFREG) else "no regular file"


def _open_zip(path: pathlib.Path) -> zipfile.ZipFile:
    setting = f"config.data.path={str(path)!r}"
    try:
        if not path.is_file():
            raise UserError(f"{setting} is neither a directory nor a file: name one of pictures")
        with open(path, "rb") as file:
            is_zip = file.read(2) == b"PK" or zipfile.is_zipfile(path)
        if not is_zip:
            raise UserError(
                f"{setting} is neither a directory nor a readable zip: give a folder or zip of"
                " pictures"
            )
        return zipfile.ZipFile(path)
    except UserError:
        raise
    except Exception as error:  # zipfile lets through what its own codecs and structs raise
        raise UserError(
            f"{setting} is a zip that cannot be listed ({_reason(error)}): get it again, or unpack"
            " it with another program and name the folder"
        ) from error


def _cannot(error: Exception) -> str:
    return f"cannot be read: {_reason(error)}"


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror  # without the name, so that equal reasons count as one
    return " ".join(str(error).split()) or type(error).__name__


def relative(name: str, prefix: str) -> str:
    """A name seen from the folder `prefix`; folders keep their slash.

    >>> relative("faces/a.jpg", "faces/"), relative("notes/", "faces/")
    ('a.jpg', '../notes/')
    """
    if not prefix:
        return name
    seen = posixpath.relpath("/" + name, "/" + prefix)
    return seen + "/" if name.endswith("/") else seen
