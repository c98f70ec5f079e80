"""The procedural faces: pure functions of (seed, index), and the effect of each factor."""

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
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


# One full batch of pictures of 64 x 64, and a second one of which only three pictures are used.
BATCH = _PIXELS_PER_BATCH // 64**2
COUNT = BATCH + 3


@pytest.fixture(scope="module")
def population():
    """Returns the pictures and the labels of the first faces."""
    return faces(np.arange(COUNT), 64, 64)


def test_a_picture_does_not_depend_on_its_batch():
    indices = np.array([5, 3, 900, 3, 12, 70])
    together, labels = faces(indices, 48, 32, seed=2)
    assert together.shape == (6, 48, 32, 3) and together.dtype == np.uint8
    single, label = faces(indices[2:3], 48, 32, seed=2)
    np.testing.assert_array_equal(single[0], together[2])
    assert label["yaw"][0] == labels["yaw"][2]
    np.testing.assert_array_equal(together[1], together[3])


def test_pictures_are_drawn_in_batches_of_one_shape(population):
    programs = _paint_batch._cache_size()
    last, _ = faces(np.arange(BATCH - 1, COUNT), 64, 64)
    # The first of these was the last of a full batch, the others were in an incomplete one.
    np.testing.assert_array_equal(population[0][-4:], last)
    assert _paint_batch._cache_size() == programs, "another number of faces needs no program"


def test_faces_are_drawn_on_the_first_cpu_device_whatever_the_default(population):
    with jax.default_device(jax.devices()[-1]), jax.transfer_guard("disallow"):
        found, _ = faces(np.arange(2), 64, 64)
    np.testing.assert_array_equal(found, population[0][:2])


def test_a_cpu_that_is_switched_off_is_named(monkeypatch):
    def no_cpu(*args, **kwargs):
        raise RuntimeError("Unknown backend cpu")

    monkeypatch.setattr(jax, "local_devices", no_cpu)
    with pytest.raises(UserError, match="add cpu to JAX_PLATFORMS"):
        faces(np.arange(1), 64, 64)


def test_no_indices_give_no_pictures():
    pictures, labels = faces(np.arange(0), 64, 64)
    assert pictures.shape == (0, 64, 64, 3)
    assert all(column.shape == (0,) for column in labels.values())


def test_labels_render_to_the_pictures_they_label(population):
    pictures, labels = population
    some = {name: column[8:16] for name, column in labels.items()}
    np.testing.assert_array_equal(render(some, 64, 64), pictures[8:16])


def test_people_look_different(population):
    pictures = population[0][:BATCH].astype(np.float32)
    other = faces(np.arange(BATCH), 64, 64, seed=1)[0].astype(np.float32)
    assert np.abs(pictures - other).mean((1, 2, 3)).min() > 5
    assert pictures.std(0).min() > 15, "a pixel hardly varies between the faces"


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
def test_a_factor_changes_the_part_of_the_face_it_names(of_extremes, name, row, column):
    first, last = of_extremes[name][[0, -1]]
    y, x = centre_of(np.abs(first - last))
    assert row[0] < y < row[1] and column[0] < x < column[1]


def test_light_comes_from_the_side_it_names(of_extremes):
    left, right = of_extremes["light"]
    face = slice(20, 48)
    assert left[face, 16:30].mean() > right[face, 16:30].mean() + 8
    assert right[face, 34:48].mean() > left[face, 34:48].mean() + 8


def test_turning_moves_the_features_further_than_the_head():
    # Of the front and of the turned head: with painted lips, with bare lips, and with dark skin.
    six = sitters(yaw=[0] * 3 + [20] * 3, lip_colour=[1, 0, 0] * 2, skin_tone=[0.3, 0.3, 1] * 2)
    pictures = render(six, 64, 64).astype(np.float32)
    lips, head = [], []
    for painted, bare, dark in (pictures[:3], pictures[3:]):
        lips.append(centre_of(np.abs(painted - bare))[1])
        head.append(centre_of(np.abs(bare - dark))[1])
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


def test_a_smaller_picture_is_the_larger_one_averaged(population):
    drawn = population[0][:12].astype(np.float32)
    difference = np.abs(drawn - shrunk(faces(np.arange(12), 128, 128)[0], 2))
    assert difference.mean() < 1.5
    assert np.quantile(difference, 0.99) < 20


def test_a_picture_of_less_than_64_pixels_is_the_average_of_a_larger_one():
    indices = np.arange(12)
    small, large = faces(indices, 48, 32)[0], faces(indices, 96, 64)[0]
    # The average is rounded to a whole number.
    assert np.abs(small - shrunk(large, 2)).max() <= 0.5


def test_another_aspect_adds_background_only(population):
    square = population[0][:6].astype(int)
    tall = faces(np.arange(6), 96, 64)[0].astype(int)
    # Equal up to rounding: the coordinates are computed from another height.
    assert np.abs(tall[:, 16:-16] - square).max() <= 1


FEW = 8  # faces that are drawn at once


@settings(max_examples=3, suppress_health_check=[HealthCheck.large_base_example])
@given(st.data())
def test_any_factors_in_range_make_a_smooth_picture(data):
    factors = {}
    for factor in FACTORS:
        low, high = np.float32([factor.low, factor.high]).tolist()
        categorical = factor.kind == "categorical"
        value = st.integers(int(low), int(high)) if categorical else st.floats(low, high, width=32)
        values = data.draw(st.lists(value, min_size=FEW, max_size=FEW), factor.name)
        factors[factor.name] = np.array(values, np.int32 if categorical else np.float32)
    pictures = render(factors, 64, 64).astype(np.float32)
    # The mean difference of neighbouring pixels. Noise would give 85. The maximum over 4,000 drawn
    # faces is 16, and combinations of extreme factors go a little higher.
    assert np.abs(np.diff(pictures, axis=1)).mean((1, 2, 3)).max() < 24
    assert np.abs(np.diff(pictures, axis=2)).mean((1, 2, 3)).max() < 24
    assert pictures.std((1, 2, 3)).min() > 4


# Invalid arguments


def test_wrong_factors_and_sizes_are_named():
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
