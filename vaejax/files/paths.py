"""Checks paths that users name: they must be local paths, not URLs."""

import os
import re
import urllib.parse
from pathlib import Path

from vaejax.errors import UserError

RUN_MARK = ".vaejax"
"""The name of the file that marks a directory as a work directory from its creation on."""

# A scheme has at least two letters, unlike a Windows drive. pathlib merges two slashes into one.
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/{1,3}(.*)", re.DOTALL)
# The usual tool that mounts the storage of each scheme.
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
    """Returns the path that a user named, with `~` expanded.

    Args:
      name: the flag or setting that names it, such as `--workdir` or `config.data.path`.
      value: the value of the flag or setting.

    Raises:
      UserError: the value is not a path, has a NUL character, is empty, is a URL (`gs://…`,
        `file://…`), or `~` names an unknown home directory.
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
    """Raises UserError if `value` is a URL; the message says how to get a local path instead."""
    match = _ADDRESS.fullmatch(value)
    if not match:
        return
    scheme, rest = match.groups()
    if scheme.lower() == "file":
        path = urllib.parse.unquote(rest).removeprefix("localhost/")
        remedy = f"write /{path.lstrip('/')}"
    elif scheme.lower() in ("http", "https", "ftp"):
        remedy = "download it first, and name where it lies"
    else:
        tool = _MOUNTS.get(scheme.lower(), "a FUSE file system")
        remedy = f"mount it (for example with {tool}) and name the directory where it is mounted"
    raise UserError(f"{name}={value} is an address and not a path of this machine; {remedy}")


def user_cache() -> Path:
    """Returns the directory of vaejax's caches: `$XDG_CACHE_HOME/vaejax` or `~/.cache/vaejax`.

    Raises:
      UserError: there is no home directory, or XDG_CACHE_HOME is a URL.
    """
    given = os.environ.get("XDG_CACHE_HOME", "")
    check_no_address("XDG_CACHE_HOME", given)
    try:
        # A relative path is ignored, as the XDG base directory specification demands.
        root = given if os.path.isabs(given) else Path.home() / ".cache"
    except RuntimeError as error:
        raise UserError(
            "there is no home directory for the cache: set --config.data.cache_dir or"
            " XDG_CACHE_HOME to a directory that can be written"
        ) from error
    return Path(root) / "vaejax"
