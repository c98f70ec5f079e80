"""Pictures of pictures: grids, written as files."""

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
GAP = 2
SOFTWARE = "vaejax"
# By suffix: Pillow's name of the format, and how it is written.
FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    ".png": ("PNG", {}),
    ".jpg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".jpeg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".webp": ("WEBP", {"lossless": True}),
}
# Pixels a side that a format can hold.
LARGEST_SIDE = {"PNG": 2**31 - 1, "JPEG": 65_535, "WEBP": 16_383}


def grid(images: Pictures, columns: int) -> UInt8[np.ndarray, "rows columns channel"]:
    """Lays pictures out in rows of `columns`, on white, small ones enlarged."""
    count, height, width, channels = images.shape
    size = sheet_size(count, columns, (height, width))
    factor = max(1, round(CELL / max(height, width)))
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
    """Rows of `columns` from each in turn: originals above, their reconstructions below."""
    pairs = []
    for start in range(0, len(first), columns):
        pairs += [first[start : start + columns], second[start : start + columns]]
    return np.concatenate(pairs)


def check_format(path: Path, name: str, size: tuple[int, int] = (0, 0)) -> None:
    """Raises UserError if a picture cannot be written in the format of its path's suffix.

    Args:
      path: where it is to be.
      name: what the user calls that, such as `--out`.
      size: its height and width in pixels.
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
    """Height and width in pixels of a grid of `count` pictures of this height and width."""
    factor = max(1, round(CELL / max(shape)))
    rows = -(-count // columns)
    return rows * (shape[0] * factor + GAP) + GAP, columns * (shape[1] * factor + GAP) + GAP


def save(path: Path, image: UInt8[np.ndarray, "height width channel"]) -> None:
    """Writes a picture in the format of the path's suffix, whole or not at all.

    It is marked as drawn by vaejax.

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
        except Exception as error:  # of an encoder that is missing or fails, whatever it likes
            raise UserError(
                f"{path} cannot be written as {kind} ({short_reason(error)}); name a .png"
            ) from error


def mark(form: str) -> dict[str, Any]:
    """Options of Pillow's `save` that write into a picture by which program it was drawn.

    Args:
      form: Pillow's name of the format; those without room for it are saved unmarked.
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
    """Whether an opened picture says that vaejax has drawn it; reads only its header."""
    if image.format == "PNG":  # whose EXIF block Pillow would look for behind the pixels
        return image.info.get("Software") == SOFTWARE
    try:
        return image.getexif().get(ExifTags.Base.Software) == SOFTWARE
    except Exception:  # a damaged EXIF block makes Pillow raise nearly anything
        return False
