"""`as_pictures` accepts arrays, PIL images, files and lists of these, and refuses the rest."""

import numpy as np
import pytest
from PIL import Image
from tiny import tiny

from vaejax.errors import UserError
from vaejax.records import pictures
from vaejax.trained.inputs import as_pictures

DATA = tiny().data
FACES = np.random.default_rng(0).integers(0, 256, (3, 28, 28, 3), np.uint8)


@pytest.fixture
def files(tmp_path):
    for i, face in enumerate(FACES):
        Image.fromarray(face).save(tmp_path / f"{i}.png")
    return [tmp_path / f"{i}.png" for i in range(3)]


def test_every_form_gives_the_same_array(files):
    forms = {
        "array": FACES,
        "list of arrays": list(FACES),
        "PIL pictures": [Image.fromarray(face) for face in FACES],
        "paths": files,
        "names": [str(file) for file in files],
        "mixed": [FACES[0], files[1], Image.fromarray(FACES[2])],
    }
    for name, form in forms.items():
        np.testing.assert_array_equal(as_pictures(form, DATA), FACES, err_msg=name)


def test_one_picture_is_a_batch_of_one(files):
    for form in (FACES[0], Image.fromarray(FACES[0]), files[0], str(files[0])):
        np.testing.assert_array_equal(as_pictures(form, DATA), FACES[:1])


def test_pictures_of_other_sizes_are_cropped_like_training_pictures(tmp_path):
    photograph = Image.fromarray(FACES[0]).resize((90, 60))
    photograph.save(tmp_path / "photo.png")
    config = tiny(data={"crop": "center"}).data
    expected = photograph.crop((15, 0, 75, 60)).resize((28, 28), Image.Resampling.BILINEAR)
    for form in (photograph, tmp_path / "photo.png"):
        np.testing.assert_array_equal(as_pictures(form, config)[0], expected)


def test_colours_are_converted_to_the_channels_of_the_model():
    colour = Image.fromarray(FACES[0])
    grey = colour.convert("L")
    levels = np.asarray(grey)[None, :, :, None]
    np.testing.assert_array_equal(as_pictures(grey, DATA), np.repeat(levels, 3, axis=3))
    one_channel = tiny(data={"channels": 1}).data
    np.testing.assert_array_equal(as_pictures(colour, one_channel), levels)


@pytest.mark.parametrize(
    ("form", "message"),
    [
        (FACES.astype(np.float32), "type float32"),
        (FACES[:, :20], r"\(3, 20, 28, 3\)"),
        (FACES[:0], r"\(0, 28, 28, 3\)"),
        ([], r"takes uint8 \(batch, 28, 28, 3\)"),
        ([FACES[0], FACES[1, :20]], "different shapes"),
        (tuple(FACES.tolist()), "type int64"),
        ([[[1, 2], [3]]], "an object of type list is no picture; this model takes"),
        ("", "picture= is empty"),
        ([b"face.png"], "takes uint8"),
        (["nowhere.png"], "nowhere.png cannot be read"),
        ("https://example.org/face.png", "is an address"),
        ([None], "takes uint8"),
        ({"a": 1}, "takes uint8"),
        (3, "takes uint8"),
    ],
)
def test_other_objects_are_refused_in_one_line(form, message):
    with pytest.raises(UserError, match=message) as raised:
        as_pictures(form, DATA)
    assert "\n" not in str(raised.value)


def test_a_file_that_vaejax_has_drawn_is_accepted(tmp_path):
    pictures.save(tmp_path / "face.png", FACES[0])
    np.testing.assert_array_equal(as_pictures(tmp_path / "face.png", DATA), FACES[:1])


def test_transparent_pixels_become_white():
    clear = Image.new("RGBA", (28, 28), (10, 20, 30, 0))
    assert np.all(as_pictures(clear, DATA) == 255)


def test_the_error_names_a_file_that_is_no_picture(tmp_path):
    (tmp_path / "face.jpg").write_text("no")
    with pytest.raises(
        UserError, match=r"face\.jpg cannot be used: not a picture; this model takes"
    ):
        as_pictures(tmp_path / "face.jpg", DATA)
