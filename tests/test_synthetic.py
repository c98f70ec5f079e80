"""The procedural faces: pure functions of (seed, index), and the effect of each factor."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vaejax.data.synthetic.faces import (
    _PIXELS_PER_BATCH,
    FACTORS,
    _checked,
    _paint_batch,
    faces,
    render,
)
from vaejax.errors import UserError

NAMES = [factor.name for factor in FACTORS]

# Values of a neutral face, in which nothing hides the effect of the factor under test.
PLAIN = {
    "hair_style": 2,
    "hair_colour": 2,
    "skin_tone": 0.3,
    "eyes_open": 0.85,
    "mouth_open": 0.2,
    "smile": 0.3,
    "light": -0.3,
    "iris_colour": 4,
    "scale": 1.0,
}


def sitters(**factors):
    """Returns the factors of neutral faces that differ only in the given factors.

    There are as many faces as a given factor has values, and one if none is given.
    """
    count = max((len(np.atleast_1d(values)) for values in factors.values()), default=1)
    columns = {}
    for factor in FACTORS:
        categorical = factor.kind == "categorical"
        usual = 0 if categorical else (factor.low + factor.high) / 2
        value = factors.get(factor.name, PLAIN.get(factor.name, usual))
        columns[factor.name] = np.full(count, value, np.int32 if categorical else np.float32)
    return columns


def extremes(factor):
    """Returns all values of a categorical factor, or the ends of the range of a continuous one."""
    if factor.kind == "categorical":
        return np.arange(len(factor.categories))
    # Both ends of the hue circle are the same colour, so its middle is compared instead.
    high = 0.5 if factor.name.endswith("_hue") else factor.high
    return np.array([factor.low, high])


@pytest.mark.parametrize(("height", "width"), [(64, 64), (48, 32)])
def test_a_picture_does_not_depend_on_its_batch(height, width):
    indices = np.array([5, 3, 900, 3, 12, 70])
    together, labels = faces(indices, height, width, seed=2)
    assert together.shape == (6, height, width, 3) and together.dtype == np.uint8
    alone, label = faces(indices[2:3], height, width, seed=2)
    np.testing.assert_array_equal(alone[0], together[2])
    assert label["yaw"][0] == labels["yaw"][2]
    np.testing.assert_array_equal(together[1], together[3])


def test_pictures_go_through_in_batches_of_one_shape():
    # One full batch and a partial one: a picture must not depend on which of them it is in.
    batch = _PIXELS_PER_BATCH // 64**2
    several, _ = faces(np.arange(batch + 3), 64, 64)
    last, _ = faces(np.arange(batch - 1, batch + 3), 64, 64)
    np.testing.assert_array_equal(several[-4:], last)
    assert _paint_batch._cache_size() <= 6  # one program for each picture size and default device


def test_drawn_on_the_first_cpu_device_whatever_the_default():
    expected, _ = faces(np.arange(2), 64, 64)
    with jax.default_device(jax.devices()[-1]), jax.transfer_guard("disallow"):
        found, _ = faces(np.arange(2), 64, 64)
    np.testing.assert_array_equal(found, expected)


def test_a_cpu_that_is_switched_off_is_named(monkeypatch):
    def no_cpu(*args, **kwargs):
        raise RuntimeError("Unknown backend cpu")

    monkeypatch.setattr(jax, "local_devices", no_cpu)
    with pytest.raises(UserError, match="add cpu to JAX_PLATFORMS"):
        faces(np.arange(1), 64, 64)


def test_no_pictures():
    pictures, labels = faces(np.arange(0), 64, 64)
    assert pictures.shape == (0, 64, 64, 3)
    assert all(column.shape == (0,) for column in labels.values())


def test_labels_render_to_the_pictures_they_label():
    pictures, labels = faces(np.arange(8), 64, 64, seed=4)
    np.testing.assert_array_equal(render(labels, 64, 64), pictures)


def test_people_look_different():
    pictures = faces(np.arange(200), 64, 64)[0].astype(np.float32)
    other = faces(np.arange(200), 64, 64, seed=1)[0].astype(np.float32)
    assert np.abs(pictures - other).mean((1, 2, 3)).min() > 5
    spread = pictures.std(0)
    assert spread.min() > 15  # every pixel varies between the faces


@pytest.fixture(scope="module")
def of_extremes():
    """For each factor, a neutral face with each of its extremes."""
    each = [sitters(**{factor.name: extremes(factor)}) for factor in FACTORS]
    together = {name: np.concatenate([columns[name] for columns in each]) for name in NAMES}
    ends = np.cumsum([len(columns[NAMES[0]]) for columns in each])[:-1]
    pictures = render(together, 64, 64).astype(np.float32)
    return dict(zip(NAMES, np.split(pictures, ends), strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_each_factor_changes_the_picture(of_extremes, name):
    pictures = of_extremes[name]
    for row, picture in enumerate(pictures):
        for other in pictures[:row]:
            change = np.abs(picture - other)
            assert change.max() > 24, "no value changes by more than 24"
            assert change.mean() > 0.05, "the mean change is too small to be visible"


def centre_of(change):
    """Returns the row and column of the centre of a change, each from 0 to 1."""
    weight = change.sum(-1)
    rows, columns = np.indices(weight.shape)
    return np.array([(rows * weight).sum(), (columns * weight).sum()]) / weight.sum() / 64


@pytest.mark.parametrize(
    ("name", "row", "column"),
    [
        ("gaze", (0.45, 0.6), (0.4, 0.6)),
        ("eyes_open", (0.45, 0.6), (0.4, 0.6)),
        ("brows", (0.35, 0.52), (0.4, 0.6)),
        ("glasses", (0.45, 0.6), (0.4, 0.6)),
        ("smile", (0.62, 0.8), (0.4, 0.6)),
        ("mouth_open", (0.65, 0.95), (0.4, 0.6)),
        ("nose_width", (0.5, 0.7), (0.4, 0.6)),
        ("beard", (0.62, 0.85), (0.4, 0.6)),
        ("clothes_hue", (0.85, 1.0), (0.4, 0.6)),
        ("hair_colour", (0.05, 0.4), (0.4, 0.6)),
    ],
)
def test_factors_change_the_place_they_name(name, row, column):
    factor = FACTORS[NAMES.index(name)]
    first, last = render(sitters(**{name: extremes(factor)[[0, -1]]}), 64, 64).astype(np.float32)
    y, x = centre_of(np.abs(first - last))
    assert row[0] < y < row[1] and column[0] < x < column[1]


def test_light_comes_from_the_side_it_names():
    left, right = render(sitters(light=[-1, 1]), 64, 64).astype(np.float32)
    face = slice(20, 48)
    assert left[face, 16:30].mean() > right[face, 16:30].mean() + 8
    assert right[face, 34:48].mean() > left[face, 34:48].mean() + 8


def test_turning_moves_the_features_further_than_the_head():
    front, turned = sitters(yaw=[0]), sitters(yaw=[20])
    lips, head = [], []
    for sitter in (front, turned):
        painted = {**sitter, "lip_colour": np.ones(1, np.float32)}
        bare = {**sitter, "lip_colour": np.zeros(1, np.float32)}
        dark = {**bare, "skin_tone": np.ones(1, np.float32)}
        one, two, three = (render(f, 64, 64)[0].astype(np.float32) for f in (painted, bare, dark))
        lips.append(centre_of(np.abs(one - two))[1])
        head.append(centre_of(np.abs(two - three))[1])
    assert lips[1] - lips[0] > 0.04
    assert 0 < head[1] - head[0] < 0.7 * (lips[1] - lips[0])


def test_mirrored_factors_make_a_mirrored_picture():
    # A bald head, because the parting and the strands of hair are not mirrored.
    turned = dict(yaw=20, gaze=0.5, light=0.7, shift_x=0.03, roll=5)
    both = {name: [value, -value] for name, value in turned.items()}
    pictures = render(sitters(hair_style=0, **both), 64, 64)
    first, second = pictures.astype(np.int32)
    difference = np.abs(first - second[:, ::-1])
    assert difference.max() <= 2


def shrunk(pictures, factor):
    """Downsamples pictures by averaging squares of `factor` x `factor` pixels."""
    count, height, width, channels = pictures.shape
    tiles = pictures.reshape(count, height // factor, factor, width // factor, factor, channels)
    return tiles.astype(np.float32).mean((2, 4))


@pytest.mark.parametrize(("height", "width"), [(64, 64), (48, 32)])
def test_a_smaller_picture_is_the_larger_one_averaged(height, width):
    indices = np.arange(12)
    drawn = faces(indices, height, width)[0].astype(np.float32)
    averaged = shrunk(faces(indices, 2 * height, 2 * width)[0], 2)
    difference = np.abs(drawn - averaged)
    assert difference.mean() < 1.5
    assert np.quantile(difference, 0.99) < 20


def test_another_aspect_adds_background_only():
    square = faces(np.arange(6), 64, 64)[0]
    tall = faces(np.arange(6), 96, 64)[0]
    assert tall.shape == (6, 96, 64, 3)
    # Equal up to rounding: the coordinates are computed from another height.
    assert np.abs(tall[:, 16:-16].astype(int) - square).max() <= 1


@settings(max_examples=8)
@given(st.data())
def test_any_factors_in_range_make_a_smooth_picture(data):
    factors = {}
    for factor in FACTORS:
        if factor.kind == "categorical":
            value = data.draw(st.integers(0, len(factor.categories) - 1), factor.name)
            factors[factor.name] = np.array([value], np.int32)
        else:
            low, high = np.float32([factor.low, factor.high]).tolist()
            value = data.draw(st.floats(low, high, width=32), factor.name)
            factors[factor.name] = np.array([value], np.float32)
    picture = render(factors, 64, 64)[0].astype(np.float32)
    # The mean difference of neighbouring pixels. Noise would give 85. The maximum over 4,000 drawn
    # faces is 16, and combinations of extreme factors go a little higher.
    assert np.abs(np.diff(picture, axis=0)).mean() < 24
    assert np.abs(np.diff(picture, axis=1)).mean() < 24
    assert picture.std() > 4


# --- invalid arguments -----------------------------------------------------------------------


def test_clear_errors():
    good = sitters()
    with pytest.raises(UserError, match="face number -1 is negative"):
        faces(np.array([3, -1]), 64, 64)
    with pytest.raises(UserError, match="height=0"):
        faces(np.arange(1), 0, 64)
    with pytest.raises(UserError, match="'yaw' is missing"):
        render({name: column for name, column in good.items() if name != "yaw"}, 64, 64)
    with pytest.raises(UserError, match="'nostrils' is unknown"):
        render({**good, "nostrils": good["yaw"]}, 64, 64)
    with pytest.raises(UserError, match=r"'yaw' has the value 45.0: it goes from -30 to 30"):
        render(sitters(yaw=[0, 45]), 64, 64)
    with pytest.raises(UserError, match="'smile' has the value nan"):
        render(sitters(smile=[np.nan]), 64, 64)
    with pytest.raises(UserError, match="'hair_style' has the value 8"):
        render(sitters(hair_style=[8]), 64, 64)
    with pytest.raises(UserError, match="'glasses' is float32"):
        render({**good, "glasses": np.zeros(1, np.float32)}, 64, 64)


def test_factors_of_unequal_lengths_are_refused():
    uneven = {**sitters(), "yaw": np.zeros(2, np.float32)}
    with pytest.raises(UserError, match="'yaw' has 2: give as many of each"):
        _checked(uneven)
