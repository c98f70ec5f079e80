"""From the bytes of one picture file to pixels of the training size, or a reason why not."""

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

# `max_pixels` is checked here from the header, so Pillow's limit would only turn a user's
# explicit choice down; and what is torn is no picture, whatever else the process does with Pillow.
_SETTINGS = ((Image, "MAX_IMAGE_PIXELS", None), (ImageFile, "LOAD_TRUNCATED_IMAGES", False))
_PNG = b"\x89PNG\r\n\x1a\n"
_METADATA = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")
# Formats of several frames or pages; a phone's JPEG (MPO) has a preview beside its picture.
_ANIMATED = ("GIF", "PNG", "WEBP", "TIFF", "AVIF")
_ENLARGED = 2.0


class UnusablePicture(Exception):
    """A picture is set aside; the message is the reason."""


class DamagedPicture(UnusablePicture):
    """Pillow could not read it."""


class _Quiet:
    """Pillow's settings of a build; they are the process's, so the last build takes them back."""

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
    """Pillow without its own size limit and warnings, for the time of a build; in any thread."""
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
      image_size: height and width of the result.
      channels: 3 for RGB, 1 for grey.
      crop: a preset of `vaejax.data.pictures.crops`.
      max_pixels: a larger picture is refused before it is decoded.
      refuse_drawn: refuse pictures that vaejax has drawn: what a run makes is not its data.
      remark: is called with what is odd about a picture that is used all the same.

    Raises:
      UnusablePicture: with the reason, for whatever is wrong with the picture.
    """

    def pixels(content: bytes | np.ndarray) -> np.ndarray:
        try:
            image = open_image(content, max_pixels)
            if refuse_drawn and is_marked(image):
                raise UnusablePicture("drawn by vaejax")
            # The first frame of an animation is the one an opened picture stands at.
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
        # Pillow refuses a PNG for its texts and profiles: too long, or damaged.
        if len(bare) == len(content):
            raise
    return pixels(bare)


def to_pixels(
    image: Image.Image, *, image_size: tuple[int, int], channels: int, crop: str
) -> UInt8[np.ndarray, "height width channel"]:
    """A picture of Pillow turned upright, flattened, cropped and resized; arguments as `decode`.

    Raises:
      UnusablePicture: pixels without a known range.
      Exception: nearly any, of Pillow, where it is damaged.
    """
    image = flatten(_upright(image), "RGB" if channels == 3 else "L")
    image = crop_and_resize(image, crop, image_size)
    return np.asarray(image).reshape(*image_size, channels)


def open_image(content: bytes | np.ndarray, max_pixels: int) -> Image.Image:
    """Reads a picture's header; an array becomes a picture.

    Raises:
      UnusablePicture: it is empty or too large.
      Exception: nearly any, of Pillow, where it is damaged.
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
    """What is wrong with a picture at which Pillow raised an error."""
    if isinstance(content, bytes) and (reason := refusal("", content[:HEAD_BYTES])):
        return reason
    if isinstance(error, Image.UnidentifiedImageError):
        return "damaged at its beginning"
    return " ".join(str(error).split()) or type(error).__name__


def without_metadata(content: bytes) -> bytes:
    """A PNG without its texts and its colour profile; any other file as it is.

    Short plain XMP stays: the orientation may stand in it.
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
    """Any Pillow picture in 8-bit "RGB" or "L": 16 bits scaled, transparency laid on white.

    Raises:
      UnusablePicture: pixels without a known range (floating point, 32-bit integers).
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
    """Turned as its EXIF orientation asks; as it lies where the EXIF block is damaged."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:
        return image
