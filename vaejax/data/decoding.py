"""From the bytes of one picture file to pixels of the training size, or a reason why not."""

import contextlib
import io
import warnings
from collections.abc import Iterator

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from vaejax.data.crops import crop_and_resize

# Formats are recognised by content, never by suffix. The list is closed because some of
# Pillow's other readers run programs (EPS calls Ghostscript).
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")


class UnusablePicture(Exception):
    """A picture is set aside; the message is the reason."""


@contextlib.contextmanager
def quiet_pillow() -> Iterator[None]:
    """Pillow without its own size limit and warnings, for the time of a build.

    `max_pixels` is checked here from the header, so Pillow's limit would only turn a user's
    explicit choice down; a warning about somebody's EXIF block helps nobody.
    """
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def decode(
    content: bytes | np.ndarray,
    *,
    image_size: tuple[int, int],
    channels: int,
    crop: str,
    max_pixels: int,
) -> UInt8[np.ndarray, "height width channel"]:
    """Decodes, turns upright, flattens, crops and resizes one picture.

    Args:
      content: a picture file's bytes, or uint8 pixels `[h, w]` or `[h, w, c]`, c 1, 3 or 4.
      image_size: height and width of the result.
      channels: 3 for RGB, 1 for grey.
      crop: a preset of `vaejax.data.crops`.
      max_pixels: a larger picture is refused before it is decoded.

    Raises:
      UnusablePicture: with the reason, for whatever is wrong with the picture.
    """
    image = open_image(content, max_pixels)
    try:
        # The first frame of an animation is the one an opened picture stands at.
        image.load()
        image = flatten(_upright(image), "RGB" if channels == 3 else "L")
        image = crop_and_resize(image, crop, image_size)
    except UnusablePicture:
        raise
    except Exception as error:  # damaged bytes make Pillow's readers raise nearly anything
        raise UnusablePicture(str(error) or type(error).__name__) from error
    return np.asarray(image).reshape(*image_size, channels)


def open_image(content: bytes | np.ndarray, max_pixels: int) -> Image.Image:
    """Reads a picture's header (an array becomes a picture); `UnusablePicture` if it is bad."""
    if isinstance(content, np.ndarray):
        flat = content[..., 0] if content.ndim == 3 and content.shape[-1] == 1 else content
        return Image.fromarray(np.ascontiguousarray(flat))
    if not content:
        raise UnusablePicture("empty file")
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
    except Image.UnidentifiedImageError as error:
        raise UnusablePicture("not a picture, or not in a format known here") from error
    except Exception as error:
        raise UnusablePicture(str(error) or type(error).__name__) from error
    if image.width * image.height > max_pixels:
        raise UnusablePicture(
            f"{image.width}x{image.height} pixels, more than config.data.max_pixels={max_pixels}"
        )
    return image


def flatten(image: Image.Image, mode: str) -> Image.Image:
    """Any Pillow picture in 8-bit "RGB" or "L": 16 bits scaled, transparency laid on white.

    Raises:
      UnusablePicture: pixels without a known range (floating point, 32-bit integers).
    """
    if image.mode == "F":
        raise UnusablePicture("floating-point pixels, whose range is unknown")
    if image.mode == "I" or image.mode.startswith("I;16"):
        # Pillow's own conversion clips at 255, which turns such pictures white.
        wide = np.asarray(image).astype(np.int64)
        if wide.min() < 0 or wide.max() > 65535:
            raise UnusablePicture("32-bit integer pixels, whose range is unknown")
        image = Image.fromarray(((wide * 255 + 32767) // 65535).astype(np.uint8))
    elif image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    elif image.mode not in ("1", "L", "RGB"):
        image = image.convert("RGB")
    return image if image.mode == mode else image.convert(mode)


def _upright(image: Image.Image) -> Image.Image:
    """Turned as its EXIF orientation asks; as it lies where the EXIF block is damaged."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:
        return image
