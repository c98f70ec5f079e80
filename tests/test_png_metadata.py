"""PNG files with long, damaged or hostile texts and colour profiles are decoded all the same."""

import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from picture_trees import encoded
from PIL import Image

from vaejax.data.pictures.decoding import decode, quiet_pillow

COLOUR = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)


def decoded(content: bytes) -> np.ndarray:
    return decode(content, image_size=(40, 40), channels=3, crop="center", max_pixels=10**8)


def png_with(*chunks: tuple[bytes, bytes], behind: bool = False) -> bytes:
    """Returns a PNG of COLOUR with chunks inserted before or after its pixel data."""
    picture = encoded(Image.fromarray(COLOUR))
    at = picture.index(b"IEND") - 4 if behind else 33  # after signature and IHDR
    extra = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    return picture[:at] + extra + picture[at:]


LONG = b"prompt " * 300_000  # 2.1 MB; Pillow allows 1 MiB per compressed text, 64 MiB in all
XMP = b"XML:com.adobe.xmp"
CHUNKS = {
    "compressed text": lambda: [(b"zTXt", b"parameters\0\0" + zlib.compress(LONG))],
    "compressed international text": lambda: [(b"iTXt", b"x\0\1\0\0\0" + zlib.compress(LONG))],
    "compressed XMP": lambda: [(b"iTXt", XMP + b"\0\1\0\0\0" + zlib.compress(LONG))],
    "colour profile": lambda: [(b"iCCP", b"icc\0\0" + zlib.compress(LONG))],
    "many texts": lambda: [(b"tEXt", b"n%d\0" % number + LONG) for number in range(33)],
    "much XMP": lambda: [(b"iTXt", XMP + b"\0\0\0\0\0" + LONG) for _ in range(33)],
    "a bomb": lambda: [(b"zTXt", b"x\0\0" + zlib.compress(bytes(96 << 20), level=1))],
    "damaged text": lambda: [(b"zTXt", b"parameters\0\0no zlib stream"), (b"tEXt", b"")],
}


@pytest.mark.parametrize("behind", [False, True], ids=["before", "behind"])
@pytest.mark.parametrize("kind", CHUNKS)
def test_a_picture_with_long_or_damaged_metadata_is_decoded(kind, behind):
    picture = png_with(*CHUNKS[kind](), behind=behind)
    tracemalloc.start()
    try:
        with quiet_pillow():
            np.testing.assert_array_equal(decoded(picture), COLOUR)
        assert tracemalloc.get_traced_memory()[1] < (64 << 20) + 4 * len(picture)
    finally:
        tracemalloc.stop()


def test_the_orientation_in_a_short_xmp_is_applied_beside_a_long_text():
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><r tiff:Orientation="3"/></x:xmpmeta>'
    short = (b"iTXt", XMP + b"\0\0\0\0\0" + xmp)
    for chunks in ([short], [short, *CHUNKS["compressed text"]()]):
        np.testing.assert_array_equal(decoded(png_with(*chunks)), np.rot90(COLOUR, 2))
