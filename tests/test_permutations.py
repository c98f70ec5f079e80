"""The coupling flow's fixed permutations: trained models depend on them, so they never change."""

import hashlib

import jax
import pytest

from vaejax.priors import CouplingFlow
from vaejax.priors.permutations import fixed_permutations

# Drawn by numpy.random.default_rng(0) of NumPy 2.4, under which the first models were trained.
GOLDEN = {
    (2, 1): [[0, 1]],
    (3, 2): [[2, 0, 1], [2, 1, 0]],
    (6, 2): [[3, 2, 5, 4, 0, 1], [4, 5, 1, 2, 0, 3]],
    (16, 1): [[2, 11, 3, 10, 0, 4, 7, 5, 14, 12, 6, 9, 13, 8, 1, 15]],
}
DIGESTS = {
    (64, 4): "82ea5092a22958fa",
    (128, 4): "4e7be1bb8e4dd8f4",
    (256, 4): "9d26667f96dce9b5",
    (1000, 2): "8a68c52cf963127a",
}


@pytest.mark.parametrize("size, count", GOLDEN)
def test_small_permutations_never_change(size, count):
    assert fixed_permutations(size, count) == GOLDEN[size, count]


@pytest.mark.parametrize("size, count", DIGESTS)
def test_large_permutations_never_change(size, count):
    text = repr(fixed_permutations(size, count)).encode()
    assert hashlib.sha256(text).hexdigest()[:16] == DIGESTS[size, count]


def test_each_order_is_a_permutation_and_a_longer_list_begins_with_the_shorter():
    for size in range(1, 80):
        three = fixed_permutations(size, 3)
        assert all(sorted(order) == list(range(size)) for order in three)
        assert fixed_permutations(size, 2) == three[:2]


def test_the_flow_draws_no_numbers_from_numpy(monkeypatch):
    def refuse(*_):
        raise AssertionError("NumPy may change what its generators draw")

    monkeypatch.setattr("numpy.random.default_rng", refuse)
    jax.eval_shape(CouplingFlow(6, layers=4).init, jax.random.key(0), jax.numpy.zeros((1, 6)))
