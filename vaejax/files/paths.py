"""Places that users name: paths of this machine, not addresses."""

import os
import re
from pathlib import Path

from vaejax.errors import UserError

RUN_MARK = ".vaejax"
"""The file by which a work directory is known from its first moment."""

# A scheme has two letters at least, which a Windows drive has not. pathlib makes one slash of two.
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/{1,3}(.*)", re.DOTALL)
_MOUNTS = {
    "gs": "gcsfuse",
    "gcs": "gcsfuse",
    "s3": "mount-s3 or s3fs",
    "s3a": "mount-s3 or s3fs",
    "hdfs": "hdfs-fuse",
    "az": "blobfuse2",
    "abfs": "blobfuse2",
    "abfss": "blobfuse2",
}


def local_path(name: str, value: str | Path) -> Path:
    """The path that a user named, `~` expanded.

    Args:
      name: what the user calls it, such as `--workdir` or `config.data.path`.
      value: what was given.

    Raises:
      UserError: it is no path, empty, an address (`gs://…`, `file://…`), or its home is unknown.
    """
    if not isinstance(value, (str, os.PathLike)):
        raise UserError(f"{name}={value!r} is no path; name a file or directory")
    check_no_address(name, str(value))
    if "\0" in str(value):
        raise UserError(f"{name}={str(value)!r} is no path: it has a NUL character; write another")
    if str(value) == "":
        raise UserError(f"{name}= is empty; name a path, or leave it out")
    try:
        return Path(value).expanduser()
    except RuntimeError as error:
        reason = str(error).rstrip(".")
        raise UserError(f"{name}={value}: {reason}; write the path without ~") from error


def check_no_address(name: str, value: str) -> None:
    """Raises UserError if `value` is an address; the line says how to make a path of it."""
    match = _ADDRESS.fullmatch(value)
    if not match:
        return
    scheme, rest = match.groups()
    if scheme.lower() == "file":
        remedy = f"write /{rest.lstrip('/')}"
    elif scheme.lower() in ("http", "https", "ftp"):
        remedy = "download it first, and name where it lies"
    else:
        tool = _MOUNTS.get(scheme.lower(), "a FUSE file system")
        remedy = f"mount it (for example with {tool}) and name the directory where it is mounted"
    raise UserError(f"{name}={value} is an address and not a path of this machine; {remedy}")


def user_cache() -> Path:
    """Where vaejax keeps what it can make again: $XDG_CACHE_HOME/vaejax or ~/.cache/vaejax.

    Raises:
      UserError: there is no home directory.
    """
    given = os.environ.get("XDG_CACHE_HOME", "")
    check_no_address("XDG_CACHE_HOME", given)
    try:
        # A relative one is ignored, as the XDG base directory specification has it.
        root = given if os.path.isabs(given) else Path.home() / ".cache"
    except RuntimeError as error:
        raise UserError(
            "there is no home directory for the cache: set --config.data.cache_dir or"
            " XDG_CACHE_HOME to a directory that can be written"
        ) from error
    return Path(root) / "vaejax"
