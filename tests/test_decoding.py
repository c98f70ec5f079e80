"""Tests the decoding of unusual and damaged pictures, which are used or refused with a reason."""

import concurrent.futures
import io
import threading
import warnings

import numpy as np
import pytest
from picture_trees import encoded, header_only
from PIL import Image, ImageFile

from vaejax.data.pictures.decoding import UnusablePicture, decode, quiet_pillow
from vaejax.records import pictures

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (40, 40), np.uint8)
COLOUR = RNG.integers(0, 256, (40, 40, 3), np.uint8)


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


def test_extra_frames_and_enlargement_are_remarked():
    def remarks(content, size=(40, 40)):
        found = []
        decode(
            content, image_size=size, channels=3, crop="center", max_pixels=10**6,
            remark=found.append,
        )  # fmt: skip
        return found

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


def test_transparent_pixels_are_composited_on_white():
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


def test_palette_cmyk_and_one_bit_pictures_become_rgb():
    flat = Image.new("RGB", (40, 40), (200, 30, 60))
    assert (decoded(encoded(flat.quantize(4))) == [200, 30, 60]).all()
    got = decoded(encoded(flat.convert("CMYK"), "JPEG", quality=95)).astype(int)
    assert np.abs(got - [200, 30, 60]).max() < 6
    assert (decoded(encoded(Image.new("1", (40, 40), 1))) == 255).all()


def test_exif_orientation_is_applied_before_the_crop():
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees clockwise to display
    picture = encoded(Image.fromarray(COLOUR[:20]), exif=exif)
    got = decoded(picture, size=(40, 20), crop="none")
    np.testing.assert_array_equal(got, np.rot90(COLOUR[:20], -1))


def test_a_picture_with_damaged_exif_is_decoded():
    jpeg = encoded(Image.fromarray(COLOUR), "JPEG")
    junk = b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\xff" * 40
    with quiet_pillow():
        got = decoded(jpeg[:2] + b"\xff\xe1" + (len(junk) + 2).to_bytes(2, "big") + junk + jpeg[2:])
    np.testing.assert_array_equal(got, np.asarray(Image.open(io.BytesIO(jpeg))))


def test_the_first_frame_of_an_animation_is_used():
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
        (encoded(Image.fromarray(COLOUR))[:600], "image file is truncated"),
        (encoded(Image.fromarray(COLOUR))[:20], "Truncated File Read"),
        (encoded(Image.new("L", (1, 1))), "1x1 pixels.*too small"),
        (encoded(Image.new("L", (1, 900))), "1x900 pixels.*too small"),
    ],
)
def test_an_unusable_file_is_refused_with_a_reason(content, reason):
    with pytest.raises(UnusablePicture, match=reason):
        decoded(content)


def test_large_pictures_are_refused_from_the_header_alone():
    with (
        quiet_pillow(),
        pytest.raises(UnusablePicture, match="60000x60000 pixels, more than config"),
    ):
        decoded(header_only(60_000, 60_000))


def test_max_pixels_replaces_the_limit_of_pillow(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # Pillow would reject 1600 pixels
    with quiet_pillow():
        assert decoded(encoded(Image.fromarray(COLOUR))).shape == (40, 40, 3)
    assert Image.MAX_IMAGE_PIXELS == 100
    with quiet_pillow(), pytest.raises(UnusablePicture, match="max_pixels=1599"):
        decoded(encoded(Image.new("L", (4, 4)).resize((40, 40))), max_pixels=1599)


def test_arrays_are_decoded_like_files():
    np.testing.assert_array_equal(decoded(COLOUR), COLOUR)
    np.testing.assert_array_equal(decoded(GREY, channels=1), GREY[..., None])
    np.testing.assert_array_equal(decoded(GREY[..., None], channels=1), GREY[..., None])
    want = np.asarray(Image.fromarray(COLOUR).resize((28, 28), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(decoded(COLOUR, size=(28, 28)), want)


def test_builds_in_threads_restore_the_settings_of_pillow(monkeypatch):
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
def test_a_picture_with_the_mark_of_vaejax_is_refused(form):
    picture = Image.fromarray(COLOUR)
    with pytest.raises(UnusablePicture, match="drawn by vaejax"):
        decoded(encoded(picture, form, **pictures.mark(form)))
    assert decoded(encoded(picture, form)).shape == COLOUR.shape


@pytest.mark.parametrize("suffix", sorted(pictures.FORMATS))
def test_a_picture_that_vaejax_saved_is_refused(suffix, tmp_path):
    file = tmp_path / f"a{suffix}"
    pictures.save(file, COLOUR)
    with pytest.raises(UnusablePicture, match="drawn by vaejax"):
        decoded(file.read_bytes())


def test_heic_is_used_where_its_reader_is_installed():
    pillow_heif = pytest.importorskip("pillow_heif", reason="needs the extra heic")
    buffer = io.BytesIO()
    pillow_heif.from_pillow(Image.new("RGB", (64, 64), (200, 30, 60))).save(buffer)
    got = decoded(buffer.getvalue()).astype(int)
    assert np.abs(got - [200, 30, 60]).max() < 12
