"""Tests `random_rows`, which draws a fixed random sample of the rows of a split."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaejax.data.feed.subsets import random_rows
from vaejax.metrics.frechet import frechet_distance, thumbnail_features


@given(data=st.data(), size=st.integers(2, 3000))
def test_rows_are_distinct_and_sorted_and_larger_samples_contain_smaller_ones(data, size):
    count = data.draw(st.integers(1, size - 1))
    rows = random_rows(size, count)
    assert len(rows) == count == len(np.unique(rows))
    assert np.all(np.diff(rows) > 0) and np.all((rows >= 0) & (rows < size))
    assert set(rows) <= set(random_rows(size, count + 1))


@pytest.mark.parametrize("count", [0, 7, 8])
def test_all_rows_are_taken_for_a_count_of_zero_or_at_least_the_size(count):
    np.testing.assert_array_equal(random_rows(7, count), np.arange(7))


def test_rows_never_change():
    assert random_rows(100, 5).tolist() == [10, 35, 42, 66, 98]


@pytest.mark.parametrize("count", [400, 1000])
def test_a_sample_of_a_folder_sorted_by_person_represents_all_people(count):
    """The first pictures are of few people, which would inflate their distance to all pictures."""
    rng = np.random.default_rng(0)
    people = rng.integers(0, 256, (100, 1, 4, 4, 3), np.uint8)
    images = np.repeat(people, 20, axis=1).reshape(-1, 4, 4, 3).repeat(4, axis=1).repeat(4, axis=2)
    everything = thumbnail_features(images)
    sampled = frechet_distance(
        thumbnail_features(images[random_rows(len(images), count)]), everything
    )
    first = frechet_distance(thumbnail_features(images[:count]), everything)
    assert sampled < first / 3
