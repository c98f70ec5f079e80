"""Reads state dicts that `torch.save` wrote, without torch and without running code.

Such a file is a pickle, which can name any function of any module and have it called. The unpickler
here knows the few names that a state dict needs and refuses all others. torch's source describes
both formats in `torch/serialization.py`: the stream of torch before 1.6 and the zip file since.
"""

import io
import pickle
import pickletools
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Shaped

# Torch's names for typed storages; both formats are little-endian on all usual machines.
_DTYPES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
_MAGIC, _VERSION = 0x1950A86A20F9469CFC6C, 1001


class Unreadable(ValueError):
    """A file that is not read; the message says what it is or has, as in "it is TorchScript"."""


class _Storage(NamedTuple):
    key: str
    dtype: str
    elements: int


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_zip(path: Path) -> dict[str, Shaped[np.ndarray, "..."]]:
    """Reads a state dict from the zip file that torch writes since version 1.6.

    Returns:
      Read-only arrays by name.

    Raises:
      Unreadable: it is TorchScript, holds anything but tensors, or is damaged.
      Exception: whatever zipfile or pickle raise for damaged files.
    """
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        roots = [name.removesuffix("data.pkl") for name in names if name.endswith("/data.pkl")]
        if len(roots) != 1:
            raise Unreadable("it is a zip file, but none of torch")
        (root,) = roots
        if f"{root}constants.pkl" in names:
            raise Unreadable("it is TorchScript, which is a program and not a state dict")
        if f"{root}byteorder" in names and archive.read(f"{root}byteorder") != b"little":
            raise Unreadable("it was written on a big-endian machine")
        tensors = _tensors(_unpickle(io.BytesIO(archive.read(f"{root}data.pkl"))))

        def read(storage: _Storage) -> Shaped[np.ndarray, "element"]:
            return _storage(archive.read(f"{root}data/{storage.key}"), storage)

        storages = {tensor.storage: read(tensor.storage) for tensor in tensors.values()}
    return _arrays(tensors, storages)


def read_stream(path: Path) -> dict[str, Shaped[np.ndarray, "..."]]:
    """Reads a state dict from the stream of pickles that torch wrote before version 1.6.

    Returns:
      Read-only arrays by name.

    Raises:
      Unreadable: it is no such stream, names a function, holds anything but tensors, or is damaged.
      Exception: whatever pickle raises for damaged files.
    """
    with path.open("rb") as stream:
        if _unpickle(stream) != _MAGIC or _unpickle(stream) != _VERSION:
            raise Unreadable("it is a pickle, but none of torch")
        if not _unpickle(stream)["little_endian"]:
            raise Unreadable("it was written on a big-endian machine")
        tensors = _tensors(_unpickle(stream))
        by_key = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
        storages = {}
        for key in _unpickle(stream):
            storage = by_key[key]
            if int.from_bytes(stream.read(8), "little") != storage.elements:
                raise Unreadable(f"its storage {key!r} has not the length that its tensors need")
            size = storage.elements * np.dtype(storage.dtype).itemsize
            storages[storage] = _storage(stream.read(size), storage)
    return _arrays(tensors, storages)


def _unpickle(stream: io.BufferedReader | io.BytesIO) -> Any:
    """Loads the pickle at the stream's position, and leaves the stream at its end."""
    start = stream.tell()
    for operation, argument, _ in pickletools.genops(stream):
        # The unpickler allocates its table of memos up to the index that a pickle names: damage
        # there could use up all memory. A true index is less than the number of bytes before it.
        if operation.name.endswith("PUT") and int(argument or 0) >= stream.tell():
            raise Unreadable("its pickle is damaged")
    end = stream.tell()
    stream.seek(start)
    return _Unpickler(io.BytesIO(stream.read(end - start)), encoding="utf-8").load()


class _Unpickler(pickle.Unpickler):
    """Builds dicts, numbers, texts and `_Tensor`s, and refuses everything else by its name."""

    def find_class(self, module: str, name: str) -> str | Callable[..., Any]:
        match module, name:
            case "collections", "OrderedDict":
                return OrderedDict
            # New functions at each call: a pickle may set attributes of what it is given.
            case "torch._utils", "_rebuild_tensor_v2":
                return lambda storage, offset, shape, strides, *_: _Tensor(
                    storage, offset, tuple(shape), tuple(strides)
                )
            case "torch._utils", "_rebuild_parameter":
                return lambda tensor, *_: tensor
            case "torch", storage if storage in _DTYPES:
                return storage
        raise Unreadable(
            f"it names {f'{module}.{name}'!r}, which no state dict of plain tensors needs"
        )

    def persistent_load(self, pid: Any) -> _Storage:
        # The stream has a sixth element, which described views before torch 0.4.
        kind, storage, key, _, count, *view = pid
        if kind != "storage" or any(view):
            raise Unreadable(f"it has an object {kind!r} instead of a plain storage")
        return _Storage(str(key), _DTYPES[storage], int(count))


def _tensors(loaded: Any) -> dict[str, _Tensor]:
    if not isinstance(loaded, dict):
        raise Unreadable(f"it holds one {type(loaded).__name__} and no state dict")
    for name, value in loaded.items():
        if not isinstance(name, str) or not isinstance(value, _Tensor):
            kind = "tensor" if isinstance(value, _Tensor) else type(value).__name__
            raise Unreadable(f"it is no state dict: {name!r} is a {kind} and not a named tensor")
    return loaded


def _storage(content: bytes, storage: _Storage) -> Shaped[np.ndarray, "element"]:
    expected = storage.elements * np.dtype(storage.dtype).itemsize
    if len(content) != expected:
        raise Unreadable(f"its storage {storage.key!r} has {len(content)} bytes of {expected}")
    return np.frombuffer(content, storage.dtype)


def _arrays(
    tensors: dict[str, _Tensor], storages: dict[_Storage, Shaped[np.ndarray, "element"]]
) -> dict[str, Shaped[np.ndarray, "..."]]:
    return {name: _view(tensor, storages[tensor.storage], name) for name, tensor in tensors.items()}


def _view(tensor: _Tensor, storage: Shaped[np.ndarray, "element"], name: str) -> np.ndarray:
    """Returns the elements of a tensor, which may lie apart or overlap in its storage."""
    shape, strides = tensor.shape, tensor.strides
    if len(shape) != len(strides) or not _are_counts((tensor.offset, *shape, *strides)):
        raise Unreadable(f"its tensor {name!r} has impossible sizes or strides")
    if 0 in shape:
        return np.zeros(shape, storage.dtype)
    last = tensor.offset + sum((size - 1) * stride for size, stride in zip(shape, strides))
    if last >= len(storage):
        raise Unreadable(f"its tensor {name!r} reaches past its storage of {len(storage)} elements")
    return np.lib.stride_tricks.as_strided(
        storage[tensor.offset :],
        shape,
        tuple(stride * storage.itemsize for stride in strides),
        writeable=False,
    )


def _are_counts(values: Iterable[Any]) -> bool:
    return all(isinstance(value, int) and value >= 0 for value in values)
