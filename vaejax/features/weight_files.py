"""Reads the weights of pretrained networks from files that users name; no file can run code."""

import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from vaejax.errors import UserError, short_reason
from vaejax.features.torch_files import Unreadable, read_stream, read_zip
from vaejax.files.paths import local_path

Arrays = dict[str, Shaped[np.ndarray, "..."]]

_REMEDY = "name a state dict of torch (.pth), a .safetensors or a .npz file, or download it again"


def read_weights(path: str | Path) -> Arrays:
    """Reads named arrays from a state dict of torch, a safetensors file or an npz file.

    The content decides about the format, not the file's name. A state dict may have torch's zip
    format or the one before torch 1.6; torch is not needed, and a pickle that names anything but
    plain tensors is refused. Arrays may be read-only and share memory.

    Raises:
      UserError: the file is missing, damaged or of another kind, or its format needs the package
        `safetensors`, which is not installed.
    """
    path = local_path("weights", path)
    try:
        arrays = _read(path)
        if not arrays:
            raise Unreadable("it holds no arrays")
    except Unreadable as error:
        raise UserError(f"weights {path} cannot be used: {error}; {_REMEDY}") from error
    except OSError as error:
        raise UserError(f"weights {path} cannot be read: {short_reason(error)}") from error
    except UserError:
        raise
    # Parsers raise errors of many kinds for damaged files.
    except Exception as error:
        raise UserError(
            f"weights {path} are damaged or of an unknown kind ({short_reason(error)}); {_REMEDY}"
        ) from error
    return arrays


def sha256(path: str | Path) -> str:
    """Computes the SHA-256 of a file of weights, as 64 hexadecimal digits.

    Raises:
      UserError: the file cannot be read.
    """
    path = local_path("weights", path)
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"weights {path} cannot be read: {short_reason(error)}") from error


def mismatch(arrays: Arrays, shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Describes how arrays differ from a network's names and shapes; empty if they agree.

    torch's counters of batches, `….num_batches_tracked`, may be there or not. All others must be
    floating-point.
    """
    names = {name for name in arrays if not name.endswith(".num_batches_tracked")}
    faults = [f"{name!r} is missing" for name in shapes if name not in names]
    faults += [f"{name!r} does not belong there" for name in sorted(names - shapes.keys())]
    faults += [
        f"{name!r} is {arrays[name].dtype} {arrays[name].shape} instead of float32 {shape}"
        for name, shape in shapes.items()
        if name in names
        and (arrays[name].shape != shape or not np.issubdtype(arrays[name].dtype, np.floating))
    ]
    more = f", and {len(faults) - 1} more differences" if len(faults) > 1 else ""
    return faults[0] + more if faults else ""


def _read(path: Path) -> Arrays:
    with path.open("rb") as file:
        start = file.read(16)
    if start.startswith(b"PK\x03\x04"):
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        return _read_npz(path) if names[0].endswith(".npy") else read_zip(path)
    # Pickles begin so since version 2 of their protocol, which torch has always written.
    if start.startswith(b"\x80"):
        return read_stream(path)
    # The header, which is JSON, follows its length in 8 bytes.
    if start[8:9] == b"{":
        return _read_safetensors(path)
    raise Unreadable(f"it begins with {start!r}")


def _read_npz(path: Path) -> Arrays:
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


def _read_safetensors(path: Path) -> Arrays:
    try:
        from safetensors.numpy import load_file
    except ImportError as error:
        raise UserError(
            f"weights {path} need the package 'safetensors'; run `pip install safetensors`"
        ) from error
    return load_file(path)
