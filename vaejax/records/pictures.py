"""Grids of pictures, and the image files that they are written to."""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image, PngImagePlugin

from vaejax.errors import UserError, short_reason
from vaejax.files.atomic import replacing

Pictures = UInt8[np.ndarray, "batch height width channel"]
# Small pictures are enlarged until a grid's cell has about this many pixels a side.
CELL = 96
# White pixels between cells and around the grid.
GAP = 2
SOFTWARE = "vaejax"
# By suffix: Pillow's name of the format, and the options to save it with.
FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    ".png": ("PNG", {}),
    ".jpg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".jpeg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".webp": ("WEBP", {"lossless": True}),
}
# The most pixels a side that a format can hold.
LARGEST_SIDE = {"PNG": 2**31 - 1, "JPEG": 65_535, "WEBP": 16_383}


def grid(images: Pictures, columns: int) -> UInt8[np.ndarray, "rows columns channel"]:
    """Lays pictures out in rows of `columns` on white; small ones are enlarged."""
    count, height, width, channels = images.shape
    size = sheet_size(count, columns, (height, width))
    factor = _enlargement(height, width)
    images = images.repeat(factor, axis=1).repeat(factor, axis=2)
    height, width = height * factor + GAP, width * factor + GAP
    sheet = np.full((*size, channels), 255, np.uint8)
    for i, image in enumerate(images):
        top, left = i // columns * height + GAP, i % columns * width + GAP
        sheet[top : top + height - GAP, left : left + width - GAP] = image
    return sheet


def interleave_rows(
    first: Pictures, second: Pictures, columns: int
) -> UInt8[np.ndarray, "both height width channel"]:
    """Takes rows of `columns` from each in turn: originals above, their reconstructions below."""
    pairs = []
    for start in range(0, len(first), columns):
        pairs += [first[start : start + columns], second[start : start + columns]]
    return np.concatenate(pairs)


def check_format(path: Path, name: str, size: tuple[int, int] = (0, 0)) -> None:
    """Raises UserError if a picture cannot be written in the format of its path's suffix.

    Args:
      path: file that the picture is to be written to.
      name: flag that the user gave the path in, such as `--out`.
      size: height and width of the picture in pixels; (0, 0) checks only the format.
    """
    if path.suffix.lower() not in FORMATS:
        raise UserError(
            f"{name}={path} names no format that can be written; end it in {', '.join(FORMATS)}"
        )
    limit = LARGEST_SIDE[FORMATS[path.suffix.lower()][0]]
    if max(size) > limit:
        raise UserError(
            f"{name}={path} would be a picture of {size[0]} x {size[1]} pixels, and this format "
            f"takes {limit} a side; write fewer faces, or name a .png"
        )


def sheet_size(count: int, columns: int, shape: tuple[int, int]) -> tuple[int, int]:
    """Returns the height and width in pixels of a `grid`.

    Args:
      count: number of pictures.
      columns: pictures in a row.
      shape: height and width of each picture in pixels.
    """
    factor = _enlargement(*shape)
    rows = -(-count // columns)
    return rows * (shape[0] * factor + GAP) + GAP, columns * (shape[1] * factor + GAP) + GAP


def _enlargement(height: int, width: int) -> int:
    """Returns the whole factor by which pictures of this size are enlarged in a grid."""
    return max(1, round(CELL / max(height, width)))


def save(path: Path, image: UInt8[np.ndarray, "height width channel"]) -> None:
    """Writes a picture atomically, in the format of the path's suffix.

    The file is marked as drawn by vaejax (`mark`).

    Raises:
      OSError: `path` cannot be written.
      UserError: Pillow cannot write the picture.
    """
    kind, options = FORMATS[path.suffix.lower()]
    with replacing(path) as temporary:
        picture = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
        try:
            picture.save(temporary, kind, **options, **mark(kind))
        except OSError:
            raise
        except Exception as error:  # a missing or failing encoder may raise anything
            raise UserError(
                f"{path} cannot be written as {kind} ({short_reason(error)}); name a .png"
            ) from error


def mark(form: str) -> dict[str, Any]:
    """Returns options of Pillow's `save` that mark a picture as drawn by vaejax.

    Args:
      form: Pillow's name of the format; formats that cannot hold the mark get no options.
    """
    if form == "PNG":
        text = PngImagePlugin.PngInfo()
        text.add_text("Software", SOFTWARE)
        return {"pnginfo": text}
    if form in ("JPEG", "WEBP", "AVIF", "TIFF"):
        exif = Image.Exif()
        exif[ExifTags.Base.Software] = SOFTWARE
        return {"exif": exif}
    return {}


def is_marked(image: Image.Image) -> bool:
    """Whether an opened picture is marked as drawn by vaejax; reads only its header."""
    if image.format == "PNG":  # Pillow would look for its EXIF block behind the pixels
        return image.info.get("Software") == SOFTWARE
    try:
        return image.getexif().get(ExifTags.Base.Software) == SOFTWARE
    except Exception:  # a damaged EXIF block makes Pillow raise nearly anything
        return False
