"""Tests the decoding of unusual and damaged pictures, which are used or refused with a reason."""

import concurrent.futures
import io
import re
import struct
import threading
import tracemalloc
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile

from vaejax.config import DataConfig
from vaejax.data import open_dataset
from vaejax.data.pictures.decoding import UnusablePicture, decode, quiet_pillow
from vaejax.records import pictures

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (40, 40), np.uint8)
COLOUR = RNG.integers(0, 256, (40, 40, 3), np.uint8)


def encoded(image, form="PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def decoded(content, size=(40, 40), channels=3, crop="center", max_pixels=10**8):
    return decode(
        content,
        image_size=size,
        channels=channels,
        crop=crop,
        max_pixels=max_pixels,
        refuse_drawn=True,
    )


def test_png_is_exact_and_greyscale_is_repeated_or_kept():
    np.testing.assert_array_equal(decoded(encoded(Image.fromarray(COLOUR))), COLOUR)
    grey = encoded(Image.fromarray(GREY))
    np.testing.assert_array_equal(decoded(grey), np.repeat(GREY[..., None], 3, axis=2))
    np.testing.assert_array_equal(decoded(grey, channels=1), GREY[..., None])


def test_what_is_odd_about_a_picture_is_remarked():
    def remarks(content, size=(40, 40)):
        said = []
        decode(
            content, image_size=size, channels=3, crop="center", max_pixels=10**6,
            remark=said.append,
        )  # fmt: skip
        return said

    image, other = Image.fromarray(COLOUR), Image.fromarray(255 - COLOUR)
    for form in ("GIF", "PNG", "WEBP", "TIFF"):
        frames = encoded(image, form, save_all=True, append_images=[other])
        assert remarks(frames) == ["only the first of several frames or pages is used"]
        assert remarks(encoded(image, form)) == []
    assert remarks(encoded(image), size=(80, 80)) == []
    assert remarks(encoded(image), size=(81, 81)) == [
        "far smaller than config.data.image_size, and blurred by enlarging"
    ]


def test_colour_to_grey_is_pillows_luma():
    got = decoded(encoded(Image.fromarray(COLOUR)), channels=1)
    np.testing.assert_array_equal(got[..., 0], np.asarray(Image.fromarray(COLOUR).convert("L")))


def test_sixteen_bits_are_scaled_not_clipped():
    wide = GREY.astype(np.uint16) * 257
    for form in ("PNG", "TIFF"):
        got = decoded(encoded(Image.fromarray(wide), form), channels=1)
        np.testing.assert_array_equal(got[..., 0], GREY)
    header = b"P5\n40 40\n65535\n"
    got = decoded(header + wide.astype(">u2").tobytes(), channels=1)
    np.testing.assert_array_equal(got[..., 0], GREY)


def test_pixels_of_unknown_range_are_refused():
    floats = encoded(Image.fromarray(GREY.astype(np.float32)), "TIFF")
    with pytest.raises(UnusablePicture, match="floating-point pixels"):
        decoded(floats)
    huge = encoded(Image.fromarray(GREY.astype(np.int32) * 100_000), "TIFF")
    with pytest.raises(UnusablePicture, match="32-bit integer pixels"):
        decoded(huge)


def test_transparency_lies_on_white():
    alpha = np.zeros((40, 40), np.uint8)
    alpha[:20] = 255
    got = decoded(encoded(Image.fromarray(np.dstack([COLOUR, alpha]))))
    np.testing.assert_array_equal(got[:20], COLOUR[:20])
    assert (got[20:] == 255).all()
    palette = Image.fromarray(np.repeat(np.uint8([[0], [1]]), 40, axis=1).repeat(20, axis=0), "L")
    palette = palette.convert("P")
    palette.putpalette([255, 0, 0, 0, 0, 255])
    got = decoded(encoded(palette, transparency=1))
    assert (got[:20] == [255, 0, 0]).all()
    assert (got[20:] == 255).all()


def test_palette_cmyk_and_one_bit():
    flat = Image.new("RGB", (40, 40), (200, 30, 60))
    assert (decoded(encoded(flat.quantize(4))) == [200, 30, 60]).all()
    got = decoded(encoded(flat.convert("CMYK"), "JPEG", quality=95)).astype(int)
    assert np.abs(got - [200, 30, 60]).max() < 6
    assert (decoded(encoded(Image.new("1", (40, 40), 1))) == 255).all()


def test_exif_orientation_is_obeyed_before_the_crop():
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees clockwise to display
    picture = encoded(Image.fromarray(COLOUR[:20]), exif=exif)
    got = decoded(picture, size=(40, 20), crop="none")
    np.testing.assert_array_equal(got, np.rot90(COLOUR[:20], -1))


def test_damaged_exif_does_not_cost_the_picture():
    jpeg = encoded(Image.fromarray(COLOUR), "JPEG")
    junk = b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\xff" * 40
    with quiet_pillow():
        got = decoded(jpeg[:2] + b"\xff\xe1" + (len(junk) + 2).to_bytes(2, "big") + junk + jpeg[2:])
    np.testing.assert_array_equal(got, np.asarray(Image.open(io.BytesIO(jpeg))))


def test_first_frame_of_an_animation():
    frames = [Image.new("RGB", (40, 40), colour) for colour in ("red", "lime", "blue")]
    for form in ("GIF", "WEBP", "PNG", "TIFF"):
        options = {"lossless": True} if form == "WEBP" else {}
        movie = encoded(frames[0], form, save_all=True, append_images=frames[1:], **options)
        assert (decoded(movie) == [255, 0, 0]).all(), form


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty file"),
        (b"this is a letter, not a picture\n" * 9, "not a picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture"),
        (encoded(Image.fromarray(COLOUR), "JPEG", quality=95)[:1500], "truncated"),
        (encoded(Image.fromarray(COLOUR))[:600], "."),
        (encoded(Image.fromarray(COLOUR))[:20], "."),
        (encoded(Image.new("L", (1, 1))), "1x1 pixels.*too small"),
        (encoded(Image.new("L", (1, 900))), "1x900 pixels.*too small"),
    ],
)
def test_refused_with_a_reason(content, reason):
    with pytest.raises(UnusablePicture, match=reason) as caught:
        decoded(content)
    assert str(caught.value).strip()


def test_large_pictures_are_refused_from_the_header_alone():
    with (
        quiet_pillow(),
        pytest.raises(UnusablePicture, match="60000x60000 pixels, more than config"),
    ):
        decoded(header_only(60_000, 60_000))


def test_max_pixels_is_the_users_to_choose(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # Pillow would reject 1600 pixels
    with quiet_pillow():
        assert decoded(encoded(Image.fromarray(COLOUR))).shape == (40, 40, 3)
    assert Image.MAX_IMAGE_PIXELS == 100
    with quiet_pillow(), pytest.raises(UnusablePicture, match="max_pixels=1599"):
        decoded(encoded(Image.new("L", (4, 4)).resize((40, 40))), max_pixels=1599)


def test_arrays_take_the_same_road():
    np.testing.assert_array_equal(decoded(COLOUR), COLOUR)
    np.testing.assert_array_equal(decoded(GREY, channels=1), GREY[..., None])
    np.testing.assert_array_equal(decoded(GREY[..., None], channels=1), GREY[..., None])
    want = np.asarray(Image.fromarray(COLOUR).resize((28, 28), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(decoded(COLOUR, size=(28, 28)), want)


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
    "a bomb": lambda: [(b"zTXt", b"x\0\0" + zlib.compress(bytes(300 << 20), level=1))],
    "damaged text": lambda: [(b"zTXt", b"parameters\0\0no zlib stream"), (b"tEXt", b"")],
}


@pytest.mark.parametrize("behind", [False, True], ids=["before", "behind"])
@pytest.mark.parametrize("kind", CHUNKS)
def test_texts_and_profiles_do_not_cost_the_picture(kind, behind):
    picture = png_with(*CHUNKS[kind](), behind=behind)
    tracemalloc.start()
    try:
        with quiet_pillow():
            np.testing.assert_array_equal(decoded(picture), COLOUR)
        assert tracemalloc.get_traced_memory()[1] < (64 << 20) + 4 * len(picture)
    finally:
        tracemalloc.stop()


def test_a_short_orientation_in_xmp_is_obeyed_beside_a_long_text():
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><r tiff:Orientation="3"/></x:xmpmeta>'
    short = (b"iTXt", XMP + b"\0\0\0\0\0" + xmp)
    for chunks in ([short], [short, *CHUNKS["compressed text"]()]):
        np.testing.assert_array_equal(decoded(png_with(*chunks)), np.rot90(COLOUR, 2))


def test_pillow_is_left_as_it_was_by_builds_in_threads(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    filters = list(warnings.filters)
    meet = threading.Barrier(2)

    def build(leaves_first: bool):
        with quiet_pillow():
            meet.wait()
            assert Image.MAX_IMAGE_PIXELS is None
            assert not ImageFile.LOAD_TRUNCATED_IMAGES
            if not leaves_first:
                meet.wait()
                assert Image.MAX_IMAGE_PIXELS is None
        if leaves_first:
            meet.wait()

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(build, first) for first in (True, False)]:
            done.result(timeout=60)
    assert Image.MAX_IMAGE_PIXELS == 100
    assert ImageFile.LOAD_TRUNCATED_IMAGES
    assert warnings.filters == filters


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF"])
def test_pictures_that_vaejax_has_drawn_are_known(form, tmp_path):
    picture = Image.fromarray(COLOUR)
    with pytest.raises(UnusablePicture, match="drawn by vaejax"):
        decoded(encoded(picture, form, **pictures.mark(form)))
    assert decoded(encoded(picture, form)).shape == COLOUR.shape
    pictures.save(tmp_path / "a.png", COLOUR)
    with pytest.raises(UnusablePicture, match="drawn by vaejax"):
        decoded((tmp_path / "a.png").read_bytes())


def test_heic_is_used_where_its_reader_is_installed():
    pillow_heif = pytest.importorskip("pillow_heif", reason="needs the extra heic")
    buffer = io.BytesIO()
    pillow_heif.from_pillow(Image.new("RGB", (64, 64), (200, 30, 60))).save(buffer)
    got = decoded(buffer.getvalue()).astype(int)
    assert np.abs(got - [200, 30, 60]).max() < 12


def header_only(width: int, height: int) -> bytes:
    """Returns a PNG whose header declares a size that its pixel data does not have."""
    picture = bytearray(encoded(Image.new("L", (8, 8))))
    picture[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    picture[29:33] = zlib.crc32(bytes(picture[12:29])).to_bytes(4, "big")
    return bytes(picture)


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 3
    return encoded(Image.fromarray(COLOUR), exif=exif)


def half_clear() -> bytes:
    alpha = np.full((40, 40), 128, np.uint8)
    return encoded(Image.fromarray(np.dstack([COLOUR * 0, alpha])))


def damaged(picture: bytes) -> bytes:
    middle = len(picture) // 2
    return picture[:middle] + b"\xff" * 200 + picture[middle + 200 :]


RED = Image.new("RGB", (40, 40), "red")
FOLDER = {  # file name -> (content, expected pixels or a pattern of the reason for refusal)
    "plain.png": (encoded(Image.fromarray(COLOUR)), COLOUR),
    "wrong_suffix.jpg": (encoded(Image.fromarray(COLOUR)), COLOUR),
    "upper.PNG": (encoded(Image.fromarray(COLOUR)), COLOUR),
    "grey.png": (encoded(Image.fromarray(GREY)), np.dstack([GREY] * 3)),
    "sixteen.png": (
        encoded(Image.fromarray(GREY.astype(np.uint16) * 257)),
        np.dstack([GREY] * 3),
    ),
    "one_bit.png": (encoded(Image.new("1", (40, 40), 1)), [255, 255, 255]),
    "palette.gif": (encoded(RED.quantize(2), "GIF"), [255, 0, 0]),
    "moving.gif": (
        encoded(RED, "GIF", save_all=True, append_images=[Image.new("RGB", (40, 40), "blue")]),
        [255, 0, 0],
    ),
    "cmyk.tif": (encoded(RED.convert("CMYK"), "TIFF"), [255, 0, 0]),
    "clear.png": (encoded(Image.new("RGBA", (40, 40), (9, 9, 9, 0))), [255, 255, 255]),
    "half_clear.png": (half_clear(), [127, 127, 127]),
    "turned.png": (turned(), np.rot90(COLOUR, 2)),
    "lossless.webp": (encoded(Image.fromarray(COLOUR), "WEBP", lossless=True), COLOUR),
    "bitmap.bmp": (encoded(Image.fromarray(COLOUR), "BMP"), COLOUR),
    "portable.ppm": (encoded(Image.fromarray(COLOUR), "PPM"), COLOUR),
    "small.png": (encoded(Image.new("RGB", (3, 3), "red")), [255, 0, 0]),
    "empty.jpg": (b"", "empty file"),
    "letter.jpg": (b"Dear Sir or Madam,", "not a picture"),
    "page.jpg": (b"<html><body>404 not found</body></html>", "not a picture"),
    "short.jpg": (encoded(Image.fromarray(COLOUR), "JPEG", quality=95)[:1500], "truncated"),
    "damaged.png": (damaged(encoded(Image.fromarray(COLOUR))), "data stream"),
    "dot.png": (encoded(Image.new("L", (1, 1))), "1x1 pixels.*too small"),
    "enormous.png": (header_only(60_000, 60_000), "60000x60000 pixels, more than"),
    "float.tiff": (encoded(Image.fromarray(GREY.astype(np.float32)), "TIFF"), "floating-point"),
}


def test_a_folder_of_everything(tmp_path, capsys):
    """Each file of `FOLDER` is used with the expected pixels, or set aside and reported."""
    root = tmp_path / "faces"
    root.mkdir()
    for name, (content, _) in FOLDER.items():
        (root / name).write_bytes(content)
    (root / "locked.png").symlink_to(root / "nothing")
    config = DataConfig(
        source="folder",
        path=str(root),
        crop="center",
        image_size=(40, 40),
        holdout=(0.0, 0.0),
        cache_dir=str(tmp_path / "cache"),
    )
    dataset = open_dataset(config)
    train = dataset.splits["train"]
    used = dict(zip(train.names, train.images))
    set_aside = dataset.report["set_aside"]
    assert set_aside.pop("locked.png") == "dangling link"
    assert used.keys() | set_aside.keys() == FOLDER.keys()
    for name, (_, outcome) in FOLDER.items():
        if isinstance(outcome, str):
            assert re.search(outcome, set_aside[name]), (name, set_aside[name])
        else:
            want = np.broadcast_to(np.asarray(outcome, np.uint8), (40, 40, 3))
            np.testing.assert_array_equal(used[name], want, err_msg=name)
    told = capsys.readouterr().err
    assert "not used: 2 × not a picture; 1 × dangling link; " in told
    assert f"; {len(set_aside) - 5} × other reasons; their names are in " in told
    assert dataset.report["file"] in told
