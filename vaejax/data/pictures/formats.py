"""Picture formats: recognized by their first bytes, read by Pillow and its plugins."""

import functools
import re

from PIL import Image

HEAD_BYTES = 64
"""Number of a file's first bytes that `refusal` examines."""

SUFFIXES = (
    ".jpg",
    ".jpeg",
    ".jpe",
    ".jfif",
    ".png",
    ".webp",
    ".bmp",
    ".gif",
    ".tif",
    ".tiff",
    ".ppm",
    ".pgm",
    # Formats without a signature: their first bytes say nothing.
    ".tga",
    ".pcx",
)
"""Files with these suffixes are listed as pictures unread; others, by their first bytes."""

# Camera raw files begin like TIFFs, but Pillow would find only a thumbnail in them.
_RAW_SUFFIXES = (".arw", ".cr2", ".cr3", ".dng", ".nef", ".nrw", ".orf", ".pef", ".raf", ".rw2",
                 ".sr2", ".srw")  # fmt: skip
_ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar")

# By Pillow's format names. The list is closed because some of Pillow's readers run programs (EPS
# calls Ghostscript).
_SIGNATURES = {
    "JPEG": rb"\xff\xd8\xff",
    "PNG": rb"\x89PNG\r\n\x1a\n",
    "WEBP": rb"RIFF.{4}WEBP",
    # BMP's reserved words are zero, and its header has one of a few sizes.
    "BMP": rb"BM.{4}\x00{4}.{4}[\x0c\x10\x28\x34\x38\x40\x6c\x7c]\x00\x00\x00",
    "GIF": rb"GIF8[79]a",
    "TIFF": rb"II\*\x00|MM\x00\*|II\+\x00|MM\x00\+",
    "PPM": rb"P[1-6]\s+[#\d]",
    # AVIF and HEIF: the major brand may be the container's (mif1, msf1); the format's own is then
    # one of the compatible brands that follow.
    "AVIF": rb".{4}ftyp(avi[fs]|(mif1|msf1).{4}(.{4})*?avi[fs])",
    "HEIF": rb".{4}ftyp(hei[cxms]|hev[cxms]|mif1|msf1)",
    "JPEG2000": rb"\xff\x4f\xff\x51|\x00\x00\x00\x0cjP  \r\n\x87\n",
    "PSD": rb"8BPS\x00",
    "QOI": rb"qoif",
    "DDS": rb"DDS \x7c\x00\x00\x00",
    "ICO": rb"\x00\x00\x01\x00[\x01-\xff]\x00",
    "SGI": rb"\x01\xda[\x00\x01][\x01\x02]",
    "SUN": rb"\x59\xa6\x6a\x95",
    "JXL": rb"\xff\x0a|\x00\x00\x00\x0cJXL \r\n\x87\n",
}
_PATTERNS = {name: re.compile(pattern, re.DOTALL) for name, pattern in _SIGNATURES.items()}
# Formats without a signature: tried last; only files with their suffix are listed.
_UNSIGNED = ("PCX", "TGA")


@functools.cache
def readers() -> tuple[str, ...]:
    """Returns the formats that this installation reads, by Pillow's names, in the order to try.

    HEIF (HEIC pictures) is among them if the extra `heic` (pillow-heif) is installed.
    """
    Image.init()
    try:
        import pillow_heif
    except ImportError:
        pass
    else:
        pillow_heif.register_heif_opener()
    return tuple(name for name in (*_SIGNATURES, *_UNSIGNED) if name in Image.OPEN)


def refusal(name: str, head: bytes) -> str | None:
    """Returns why a file is no usable picture, judged by its first bytes; None if it may be one.

    Args:
      name: the file's name, or "" to judge by the bytes alone.
      head: its first `HEAD_BYTES` bytes, or all of a shorter file.
    """
    if not head:
        return "empty file"
    if name.lower().endswith(_RAW_SUFFIXES):
        return "camera raw file (export it as JPEG or PNG)"
    known = next((form for form, pattern in _PATTERNS.items() if pattern.match(head)), None)
    if known is None and name.lower().endswith(_ARCHIVES):
        return "archive (unpack it, or name a zip in config.data.path)"
    if known is None:
        return "not a picture"
    if known in readers():
        return None
    if known == "HEIF":
        return "HEIC picture (to read it: pip install 'vaejax[heic]')"
    return f"{known} picture, which the installed Pillow cannot read (convert it)"
