"""Decodes one picture file to pixels of the training size, or says why it cannot be used."""

import contextlib
import io
import struct
import threading
import warnings
from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageFile, ImageOps

from vaejax.data.pictures.crops import crop_and_resize
from vaejax.data.pictures.formats import HEAD_BYTES, readers, refusal
from vaejax.records.pictures import is_marked

# `max_pixels` is checked here from the header, so Pillow's own limit could only reject what the
# user has explicitly allowed. Truncated files are unusable, whatever the process otherwise sets.
_SETTINGS = ((Image, "MAX_IMAGE_PIXELS", None), (ImageFile, "LOAD_TRUNCATED_IMAGES", False))
_PNG = b"\x89PNG\r\n\x1a\n"
_METADATA = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")
# Formats with several frames or pages. MPO is left out: a phone's JPEG in that format holds a
# preview beside its picture.
_ANIMATED = ("GIF", "PNG", "WEBP", "TIFF", "AVIF")
# A picture that is enlarged by more than this factor gets a remark.
_ENLARGED = 2.0


class UnusablePicture(Exception):
    """A picture cannot be used and is set aside; the message is the reason."""


class DamagedPicture(UnusablePicture):
    """Pillow or the crop has raised an error on a picture."""


class _Quiet:
    """Pillow's settings during builds.

    They are global to the process: the first build sets them, the last to end restores them.
    """

    def __init__(self):
        self._lock = threading.Lock()
        self._builds = 0
        self._restore = contextlib.ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            self._builds += 1
            if self._builds == 1:
                self._restore.enter_context(warnings.catch_warnings())
                # A warning about somebody's EXIF block helps nobody.
                warnings.simplefilter("ignore")
                for module, name, value in _SETTINGS:
                    self._restore.callback(setattr, module, name, getattr(module, name))
                    setattr(module, name, value)

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._builds -= 1
            if self._builds == 0:
                self._restore.close()


_quiet = _Quiet()


@contextlib.contextmanager
def quiet_pillow() -> Iterator[None]:
    """Turns off Pillow's own size limit and all warnings, in all threads, during a build."""
    with _quiet:
        yield


def decode(
    content: bytes | np.ndarray,
    *,
    image_size: tuple[int, int],
    channels: int,
    crop: str,
    max_pixels: int,
    refuse_drawn: bool = False,
    remark: Callable[[str], None] = lambda words: None,
) -> UInt8[np.ndarray, "height width channel"]:
    """Decodes, turns upright, flattens, crops and resizes one picture.

    Args:
      content: a picture file's bytes, or uint8 pixels `[h, w]` or `[h, w, c]`, c 1, 3 or 4.
      image_size: height and width of the result in pixels.
      channels: 3 for RGB, 1 for greyscale.
      crop: name of a preset of `vaejax.data.pictures.crops`.
      max_pixels: a file with more pixels is refused before it is decoded; arrays are not checked.
      refuse_drawn: whether to refuse pictures that vaejax has drawn, so that a run's output does
        not become training data.
      remark: called with anything odd about a picture that does not make it unusable.

    Raises:
      UnusablePicture: the picture cannot be used; the message is the reason.
    """

    def pixels(content: bytes | np.ndarray) -> np.ndarray:
        try:
            image = open_image(content, max_pixels)
            if refuse_drawn and is_marked(image):
                raise UnusablePicture("drawn by vaejax")
            # Pillow opens an animation at its first frame.
            image.load()
            if image.format in _ANIMATED and getattr(image, "is_animated", False):
                remark("only the first of several frames or pages is used")
            if _ENLARGED * min(image.size) < min(image_size):
                remark("far smaller than config.data.image_size, and blurred by enlarging")
            return to_pixels(image, image_size=image_size, channels=channels, crop=crop)
        except UnusablePicture:
            raise
        except Exception as error:  # damaged bytes make Pillow's readers raise nearly anything
            raise DamagedPicture(_damage(content, error)) from error

    try:
        return pixels(content)
    except DamagedPicture:
        bare = without_metadata(content) if isinstance(content, bytes) else content
        # Pillow rejects a PNG whose text chunks or colour profile are too long or damaged.
        if len(bare) == len(content):
            raise
    return pixels(bare)


def to_pixels(
    image: Image.Image, *, image_size: tuple[int, int], channels: int, crop: str
) -> UInt8[np.ndarray, "height width channel"]:
    """Turns upright, flattens, crops and resizes a Pillow picture; arguments as in `decode`.

    Raises:
      UnusablePicture: the range of the pixel values is unknown.
      ValueError: the crop does not fit the picture.
      Exception: nearly any that Pillow raises on a damaged picture.
    """
    image = flatten(_upright(image), "RGB" if channels == 3 else "L")
    image = crop_and_resize(image, crop, image_size)
    return np.asarray(image).reshape(*image_size, channels)


def open_image(content: bytes | np.ndarray, max_pixels: int) -> Image.Image:
    """Opens a picture file by its header, without decoding the pixels, or wraps an array.

    Args:
      content: as in `decode`.
      max_pixels: largest number of pixels of a file; arrays are not checked.

    Raises:
      UnusablePicture: the file is empty or has more than `max_pixels`.
      Exception: nearly any that Pillow raises on a damaged file.
    """
    if isinstance(content, np.ndarray):
        flat = content[..., 0] if content.ndim == 3 and content.shape[-1] == 1 else content
        return Image.fromarray(np.ascontiguousarray(flat))
    if not content:
        raise UnusablePicture("empty file")
    image = Image.open(io.BytesIO(content), formats=readers())
    if image.width * image.height > max_pixels:
        raise UnusablePicture(
            f"{image.width}x{image.height} pixels, more than config.data.max_pixels={max_pixels}"
        )
    return image


def _damage(content: bytes | np.ndarray, error: Exception) -> str:
    """Describes what is wrong with a picture on which Pillow or the crop raised an error."""
    if isinstance(content, bytes) and (reason := refusal("", content[:HEAD_BYTES])):
        return reason
    if isinstance(error, Image.UnidentifiedImageError):
        return "damaged at its beginning"
    return " ".join(str(error).split()) or type(error).__name__


def without_metadata(content: bytes) -> bytes:
    """Returns a PNG without its text chunks and colour profile; any other file unchanged.

    Uncompressed XMP of less than 1 MiB is kept, because it may hold the orientation.
    """
    if not content.startswith(_PNG):
        return content
    kept, at = [_PNG], len(_PNG)
    while at + 12 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, at)
        chunk = content[at : at + 12 + length]
        is_xmp = chunk[8:].startswith(b"XML:com.adobe.xmp\0\0") and length < 1 << 20
        if kind not in _METADATA or (kind == b"iTXt" and is_xmp):
            kept.append(chunk)
        at += 12 + length
    return b"".join([*kept, content[at:]])


def flatten(image: Image.Image, mode: str) -> Image.Image:
    """Converts any Pillow picture to 8 bits per channel, in the mode "RGB" or "L".

    16-bit values are scaled; transparent pictures are composited on white.

    Raises:
      UnusablePicture: the range of the pixel values is unknown (floating point, 32-bit integers).
    """
    if image.mode == "F":
        raise UnusablePicture("floating-point pixels, whose range is unknown")
    if image.mode == "I" or image.mode.startswith("I;16"):
        # Pillow's own conversion clips at 255, which turns such pictures white.
        wide = np.asarray(image).astype(np.int64)
        if np.min(wide) < 0 or np.max(wide) > 65535:
            raise UnusablePicture("32-bit integer pixels, whose range is unknown")
        image = Image.fromarray(((wide * 255 + 32767) // 65535).astype(np.uint8))
    elif image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    elif image.mode not in ("1", "L", "RGB"):
        image = image.convert("RGB")
    return image if image.mode == mode else image.convert(mode)


def _upright(image: Image.Image) -> Image.Image:
    """Applies the EXIF orientation; returns the picture unchanged if the EXIF block is damaged."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:
        return image
