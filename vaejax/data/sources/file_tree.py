"""Files in folders, in one form for directories and zips."""

from typing import Any, NamedTuple, Protocol, runtime_checkable


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


def cannot(error: Exception, name: str = "") -> str:
    """The reason for which a file is set aside that raised `error` when it was read."""
    reason = reason_of(error)
    # It leaves out the file's name, so that equal reasons are counted together.
    return f"cannot be read: {reason.replace(repr(name), 'the file') if name else reason}"


def reason_of(error: Exception) -> str:
    """What an error says, in one line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__
