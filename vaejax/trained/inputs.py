"""Converts pictures (arrays, PIL images, files) to the array that a model takes."""

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from vaejax.config import DataConfig
from vaejax.data.pictures.decoding import decode, to_pixels
from vaejax.errors import UserError
from vaejax.files.paths import local_path

Pictures = UInt8[np.ndarray, "batch height width channel"]
# An array of one or several pictures, a PIL image, the path of a file, or a list of these.
PictureLike = np.ndarray | Image.Image | str | os.PathLike | Sequence


def as_pictures(given: Any, config: DataConfig) -> Pictures:
    """Converts pictures to uint8 `[batch, height, width, channel]`.

    Arrays must have the model's shape. Files and PIL images are cropped and resized like the
    training pictures, unless they already have the model's size.

    Args:
      given: an array of pictures, one picture, or a list of pictures; a picture is an array, a
        `PIL.Image.Image` or the path of a file.
      config: the data config of the model.

    Raises:
      UserError: an item is not a picture, a file cannot be read, an array has another shape or
        dtype than the model's pictures, or there is no picture.
    """
    if isinstance(given, np.ndarray) or (hasattr(given, "__array__") and not _is_single(given)):
        given = np.asarray(given)
        array = given[None] if given.ndim == 3 else given
    else:
        if not _is_single(given) and not isinstance(given, (list, tuple)):
            raise _no_picture(given, config)
        items = [given] if _is_single(given) else given
        arrays = [_as_array(item, config) for item in items]
        if len({array.shape for array in arrays}) > 1:
            shapes = ", ".join(sorted({str(array.shape) for array in arrays}))
            raise UserError(f"pictures of different shapes: {shapes}; {_wanted(config)}")
        array = np.stack(arrays) if arrays else np.empty(0)
    if array.shape[1:] != config.shape or array.dtype != np.uint8 or not len(array):
        raise UserError(
            f"pictures of shape {array.shape} and type {array.dtype}; {_wanted(config)}"
        )
    return array


def _is_single(given: Any) -> bool:
    return isinstance(given, (Image.Image, str, os.PathLike))


def _as_array(item: Any, config: DataConfig) -> np.ndarray:
    if isinstance(item, Image.Image):
        return _cut(partial(to_pixels, item), "a PIL picture", config)
    if isinstance(item, (str, os.PathLike)):
        path = local_path("picture", os.fspath(item))
        try:
            content = path.read_bytes()
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error.strerror})") from error
        return _cut(partial(decode, content, max_pixels=config.max_pixels), str(path), config)
    try:
        return np.asarray(item)
    except ValueError as error:  # rows of different lengths
        raise _no_picture(item, config) from error


def _no_picture(given: Any, config: DataConfig) -> UserError:
    return UserError(f"an object of type {type(given).__name__} is no picture; {_wanted(config)}")


def _cut(pixels: Callable[..., np.ndarray], name: str, config: DataConfig) -> np.ndarray:
    """The pixels unchanged if they have the model's size, else cropped like training pictures."""
    reason = ""
    for crop in ("none", "stretch" if config.crop == "none" else config.crop):
        try:
            return pixels(image_size=config.image_size, channels=config.channels, crop=crop)
        except Exception as error:  # of Pillow nearly any, where a picture is damaged
            reason = str(error) or type(error).__name__
    raise UserError(f"{name} cannot be used: {reason}; {_wanted(config)}")


def _wanted(config: DataConfig) -> str:
    return f"this model takes uint8 (batch, {', '.join(map(str, config.shape))})"
