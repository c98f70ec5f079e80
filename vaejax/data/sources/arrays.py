"""Pictures in a NumPy file, `.npz` or `.npy`."""

import pathlib
from collections.abc import Iterator
from functools import partial

import numpy as np

from vaejax.data.items import Chunk, Contents, Item, Source, spans
from vaejax.errors import UserError

_USUAL_NAMES = ("images", "image", "faces", "x")


class ArrayFile(Source):
    """An array `[N, H, W]` or `[N, H, W, C]` of pictures; other arrays of length N are labels.

    Members of an `.npz` cannot be memory-mapped: they are read into memory once, while building.
    """

    kind = "array"

    def __init__(self, path: pathlib.Path):
        """Checks the file's first bytes; its suffix is ignored.

        Raises:
          UserError: it is not an `.npz` or `.npy` file, or it cannot be read.
        """
        try:
            with open(path, "rb") as file:
                head = file.read(6)
        except OSError as error:
            raise _unreadable(path, error) from error
        self._zipped = head[:2] == b"PK"
        if not self._zipped and head != b"\x93NUMPY":
            raise UserError(f"config.data.path={str(path)!r} is not an .npz or .npy file: give one")
        self._path = path

    def signature(self) -> list:
        """Returns name, size (bytes) and modification time (ns) of the file."""
        stat = self._path.stat()
        return [self._path.name, stat.st_size, stat.st_mtime_ns]

    def contents(self) -> Contents:
        """Lists all pictures in the file's order, named by their row number.

        Raises:
          UserError: the file is damaged, or its arrays are not pictures that can be used.
        """
        arrays = _load(self._path, self._zipped)
        key = find_images(arrays, self._path)
        images = arrays.pop(key)
        scale = pixel_scale(images, f"array {key!r} of {self._path}")
        labels = {
            name: array
            for name, array in arrays.items()
            if array.ndim and len(array) == len(images)
        }
        return Contents(len(images), partial(_chunks, images, scale, labels), {})


def _load(path: pathlib.Path, zipped: bool) -> dict[str, np.ndarray]:
    try:
        if not zipped:
            return {"images": np.load(path, mmap_mode="r", allow_pickle=False)}
        # Opened here, because NumPy does not close the file of a damaged zip.
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as loaded:
            members = {name: loaded[name] for name in loaded.files}
        return {name: member for name, member in members.items() if isinstance(member, np.ndarray)}
    except Exception as error:  # damaged headers and members make NumPy raise nearly anything
        raise _unreadable(path, error) from error


def _unreadable(path: pathlib.Path, error: Exception) -> UserError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return UserError(
        f"config.data.path={str(path)!r} cannot be read ({reason}): save plain numeric arrays with"
        " numpy.savez or numpy.save"
    )


def find_images(arrays: dict[str, np.ndarray], path: pathlib.Path) -> str:
    """Returns the name of the array that holds the pictures.

    If several arrays have 3 or 4 axes, the first with a usual name (such as `images`) is taken.

    Args:
      arrays: the file's arrays by name.
      path: the file, for messages.

    Raises:
      UserError: there is none or more than one, it is not laid out `[N, H, W(, C)]`, or it is
        empty.
    """
    shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in arrays.items())
    found = [name for name, array in arrays.items() if array.ndim in (3, 4)]
    found = next(([name] for name in found if name.lower() in _USUAL_NAMES), found)
    if len(found) != 1:
        trouble = "more than one array of" if found else "no array of"
        raise UserError(
            f"config.data.path={str(path)!r} has {trouble} shape [N, height, width]"
            f" or [N, height, width,"
            f" channel] (it holds: {shapes}): reshape flat pictures, and call the array 'images'"
        )
    array = arrays[found[0]]
    if array.ndim == 4 and array.shape[-1] not in (1, 3, 4):
        raise UserError(
            f"array {found[0]!r} of {path} has shape {list(array.shape)}, whose last axis is not"
            " 1, 3 or 4 channels: transpose it to [N, height, width, channel]"
        )
    if 0 in array.shape:
        raise UserError(f"array {found[0]!r} of {path} has shape {list(array.shape)}: it is empty")
    return found[0]


def pixel_scale(images: np.ndarray, what: str) -> float | None:
    """Returns the factor that scales float pixels to [0, 255]; None for uint8.

    Args:
      images: pictures `[N, ...]`.
      what: name of the array, for messages.

    Raises:
      UserError: the dtype is neither uint8 nor floating point, a value is not finite or outside
        [0, 255], or the largest lies between 1 and 2, so that neither [0, 1] nor [0, 255] fits.
    """
    if images.dtype == np.uint8:
        return None
    if images.dtype.kind != "f":
        raise UserError(f"{what} is {images.dtype}: save pictures as uint8, or floats in [0, 1]")
    low, high = np.inf, -np.inf
    for rows in spans(len(images), 256):
        part = images[rows.start : rows.stop]
        low, high = np.minimum(low, part.min()), np.maximum(high, part.max())  # propagates NaN
    if not (low >= 0 and high <= 255):
        raise UserError(
            f"{what} has values from {low:g} to {high:g}: scale them to [0, 1] or [0, 255]"
        )
    if 1 < high < 2:
        raise UserError(
            f"{what} has values from {low:g} to {high:.9g}, which is neither [0, 1] nor [0, 255]: "
            "clip them to [0, 1], or save pictures as uint8"
        )
    return 255.0 if high <= 1 else 1.0


def _chunks(
    images: np.ndarray, scale: float | None, labels: dict[str, np.ndarray], step: int
) -> Iterator[Chunk]:
    for rows in spans(len(images), step):
        items = [
            Item(
                str(row),
                partial(_pixels, images, row, scale),
                {name: array[row] for name, array in labels.items()},
            )
            for row in rows
        ]
        yield Chunk(None, partial(iter, items))


def _pixels(images: np.ndarray, row: int, scale: float | None) -> np.ndarray:
    picture = images[row]
    return picture if scale is None else np.rint(picture * scale).astype(np.uint8)
