"""Files in folders: one interface for directories and zips."""

from typing import Any, NamedTuple, Protocol, runtime_checkable

UNREADABLE = "cannot be read: "
"""First words of the reason for setting aside a file that could not be read."""


class Unreadable(Exception):
    """A file or folder cannot be read; the message is the reason."""


class Entry(NamedTuple):
    """A file or folder within a folder.

    Attributes:
      name: its name, without the folder that it is in.
      is_folder: whether it is a folder.
      size: size of a file in bytes.
      mark: value that changes with a file: size and modification time (ns), or size and CRC.
      refusal: why it must not be read or listed; "" if it may be.
    """

    name: str
    is_folder: bool = False
    size: int = 0
    mark: Any = None
    refusal: str = ""


@runtime_checkable
class Tree(Protocol):
    """Files in folders. Names are relative, with forward slashes; a folder's ends in a slash."""

    def entries(self, folder: str) -> list[Entry]:
        """Lists the entries of a folder ("" is the root); raises `Unreadable`."""

    def read(self, name: str, limit: int) -> bytes:
        """Reads a file's first `limit` bytes; raises `Unreadable`. Thread-safe."""


def cannot(error: Exception, name: str = "") -> str:
    """Formats an error raised by reading a file as the reason for setting the file aside.

    Args:
      error: what was raised.
      name: the file's name as it may stand in the message; "" if it cannot.
    """
    reason = reason_of(error)
    # The file's name is replaced, so that equal reasons are counted together.
    return f"{UNREADABLE}{reason.replace(repr(name), 'the file') if name else reason}"


def reason_of(error: Exception) -> str:
    """Returns an error's message in one line, or the name of its type if it has none."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__
