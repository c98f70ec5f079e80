"""Some of many: a sample, and not the first ones of a sorted folder."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaejax.data.subsets import random_rows, subset
from vaejax.metrics.frechet import frechet_distance, thumbnail_features


@given(size=st.integers(1, 3000), share=st.floats(0, 1))
def test_rows_are_different_in_order_and_grow(size, share):
    count = int(size * share)
    rows = random_rows(size, count)
    assert len(rows) == count == len(np.unique(rows))
    assert np.all(np.diff(rows) > 0) and np.all((rows >= 0) & (rows < size))
    assert set(rows) <= set(random_rows(size, count + 1))
    np.testing.assert_array_equal(random_rows(size, size + 5), np.arange(size))


def test_they_are_always_the_same():
    assert random_rows(100, 5).tolist() == GOLDEN


GOLDEN = [10, 35, 42, 66, 98]


def test_all_pictures_are_taken_as_they_are():
    images = np.zeros((7, 2, 2, 3), np.uint8)
    assert subset(images, 0) is images and subset(images, 7) is images
    assert len(subset(images, 3)) == 3


@pytest.mark.parametrize("count", [400, 1000])
def test_a_folder_sorted_by_person_is_sampled_fairly(count):
    """The distance of real faces to real faces, which the first pictures of few would inflate."""
    rng = np.random.default_rng(0)
    people = rng.integers(0, 256, (100, 1, 4, 4, 3), np.uint8)
    images = np.repeat(people, 20, axis=1).reshape(-1, 4, 4, 3).repeat(4, axis=1).repeat(4, axis=2)
    everything = thumbnail_features(images)
    fair = frechet_distance(thumbnail_features(subset(images, count)), everything)
    first = frechet_distance(thumbnail_features(images[:count]), everything)
    assert fair < first / 3
