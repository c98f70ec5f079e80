"""The crop presets give the same pixels as direct calls of Pillow."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vaejax.config import CROPS
from vaejax.data.pictures import crops
from vaejax.errors import UserError

BILINEAR, LANCZOS = Image.Resampling.BILINEAR, Image.Resampling.LANCZOS


def test_the_schema_offers_exactly_these_presets():
    assert set(CROPS) == {"auto", *crops.PRESETS}


@pytest.fixture(scope="module")
def photograph():
    pixels = np.random.default_rng(0).integers(0, 256, (218, 178, 3), np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize(
    ("preset", "box", "resample"),
    [
        ("wae140", (19, 39, 159, 179), LANCZOS),
        ("2svae128", (25, 45, 153, 173), BILINEAR),
        ("ddim128", (25, 57, 153, 185), BILINEAR),
        ("ptvae148", (15, 35, 163, 183), BILINEAR),
        ("nvae148", (15, 40, 163, 188), BILINEAR),
        ("stretch", (0, 0, 178, 218), BILINEAR),
        ("center", (0, 20, 178, 198), BILINEAR),
    ],
)
@pytest.mark.parametrize("size", [28, 64, 200])
def test_box_presets_are_pillow_crop_and_resize(photograph, preset, box, resample, size):
    got = crops.crop_and_resize(photograph, preset, (size, size))
    want = photograph.crop(box).resize((size, size), resample)
    np.testing.assert_array_equal(np.asarray(got), np.asarray(want))


def test_resizecrop_shrinks_then_cuts(photograph):
    got = crops.crop_and_resize(photograph, "wae_resizecrop", (64, 64))
    want = photograph.resize((64, 78), LANCZOS).crop((0, 7, 64, 71))
    np.testing.assert_array_equal(np.asarray(got), np.asarray(want))


def test_center_and_stretch_take_any_shape(photograph):
    for size in ((28, 20), (64, 128), (512, 300)):
        for preset in ("center", "stretch"):
            got = crops.crop_and_resize(photograph.convert("L"), preset, size)
            assert np.asarray(got).shape == size


@given(*[st.integers(1, 700)] * 4)
def test_center_box_is_inside_centred_and_of_the_aspect(width, height, target_width, target_height):
    box = crops.center_box((width, height), (target_width, target_height))
    left, top, right, bottom = box
    assert 0 <= left <= right <= width
    assert 0 <= top <= bottom <= height
    assert right - left == width or bottom - top == height
    assert abs((width - right) - left) <= 1
    assert abs((height - bottom) - top) <= 1
    # Rounding changes a side by at most half a pixel from the exact aspect ratio.
    exact = min(width / target_width, height / target_height)
    assert abs((right - left) - exact * target_width) <= 0.5 + 1e-9
    assert abs((bottom - top) - exact * target_height) <= 0.5 + 1e-9


def test_none_returns_the_picture_or_names_the_size_it_needs(photograph):
    assert crops.crop_and_resize(photograph, "none", (218, 178)) is photograph
    with pytest.raises(ValueError, match=r"178x218 pixels.*'none' needs 64x32"):
        crops.crop_and_resize(photograph, "none", (32, 64))


def test_celeba_presets_refuse_other_pictures(photograph):
    with pytest.raises(ValueError, match=r"100x100 pixels.*for 178x218"):
        crops.crop_and_resize(photograph.resize((100, 100)), "nvae148", (64, 64))


def test_an_unknown_preset_and_an_impossible_size_are_refused():
    crops.check_preset("stretch", (28, 20))
    crops.check_preset("center", (28, 20))
    with pytest.raises(UserError, match=r"'nvae148' gives square pictures.*28x20"):
        crops.check_preset("nvae148", (28, 20))
    with pytest.raises(UserError, match="'nvae' is not a preset: use one of wae140"):
        crops.check_preset("nvae", (64, 64))


def test_descriptions_name_box_and_filter():
    assert crops.describe("wae140") == {
        "preset": "wae140",
        "box": [19, 39, 159, 179],
        "filter": "lanczos",
    }
    assert crops.describe("center")["box"] == "center"
