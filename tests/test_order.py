"""The order of training pictures: a permutation in every epoch, which no release may change."""

import importlib.util

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from vaejax.data.feed import order
from vaejax.data.feed.order import batch_indices
from vaejax.data.lazy_tensorflow import tensorflow

SEEDS = st.integers(-1, 2**64)
# Uniform in the number of bits, so that small and large sizes are equally likely.
SIZES = st.integers(0, 42).flatmap(lambda bits: st.integers(2**bits, 2 ** (bits + 1)))
# Sizes for which TensorFlow's op never returns the last picture (see `order._word_bits`).
ONE_MORE_THAN_A_BLOCK = {2**bits + 1 for bits in range(16, 64, 2)}


def order_of(seed, first, count, size):
    """Returns the pictures at `count` positions, starting at position `first`."""
    return batch_indices(seed, np.arange(first, first + count), size)


@given(SEEDS, st.integers(1, 70), st.integers(0, 5))
def test_every_epoch_is_a_permutation(seed, size, epoch):
    order = order_of(seed, epoch * size, size, size)
    assert order.dtype == np.int64
    assert sorted(order) == list(range(size))


# At 2**16, 2**18 and 2**20 pictures the cipher's block is full; up to 2**18 an epoch is computed
# at once.
@pytest.mark.parametrize("size", [2**16 - 1, 2**16, 2**16 + 1, 2**18, 2**18 + 1, 2**20])
def test_every_epoch_is_a_permutation_at_the_limits_of_blocks(size):
    np.testing.assert_array_equal(np.sort(order_of(2, 3 * size, size, size)), np.arange(size))


@given(SEEDS, st.integers(1, 40), st.integers(1, 50), st.integers(0, 200))
def test_the_order_is_a_function_of_the_position(seed, size, batch, first):
    # A batch, even one that spans several epochs, equals its positions looked up one at a time.
    together = order_of(seed, first, batch, size)
    one_by_one = [order_of(seed, first + row, 1, size)[0] for row in range(batch)]
    assert list(together) == one_by_one


@settings(max_examples=15)  # each example computes epochs of a quarter of a million pictures
@given(SEEDS, st.integers(2**18 - 100, 2**18 + 100), st.integers(0, 2**40))
def test_a_whole_epoch_and_single_positions_have_the_same_order(seed, size, first):
    positions = np.arange(first, first + 20)
    epochs, places = np.divmod(positions, size)
    single = order._shuffled(places, order._keys(seed, epochs), size)
    at_once = [order._epoch_order(seed, int(e), size)[p] for e, p in zip(epochs, places)]
    assert list(single) == at_once == list(batch_indices(seed, positions, size))


def test_epochs_and_seeds_differ_and_look_random():
    size = 1000
    orders = [order_of(seed, e * size, size, size) for seed in (0, 1) for e in range(10)]
    # The identity is compared too: if keys were not hashed, small seeds would give nearly that.
    orders.append(np.arange(size))
    correlation = np.corrcoef(orders)[np.triu_indices(len(orders), 1)]
    assert np.abs(correlation).max() < 5 / np.sqrt(size)
    neighbours = np.mean([(np.abs(np.diff(order)) == 1).mean() for order in orders[:-1]])
    assert neighbours < 0.004  # for a random order, 2 / size is expected
    of_three = {tuple(order_of(7, e * 3, 3, 3)) for e in range(60)}
    assert len(of_three) == 6


# (seed, first position, size, pictures from that position on, by TensorFlow 2.21's op)
GOLDEN = [
    (0, 0, 1, [0, 0, 0, 0]),
    (1, 5, 2, [0, 1, 0, 0]),
    (2, 10**6, 3, [1, 2, 2, 1]),
    (3, 399, 400, [320, 236, 207, 219]),
    (0, 0, 1000, [365, 488, 42, 397, 803, 897, 319, 226]),
    (-1, 1564, 1565, [1351, 690, 668, 495]),
    (5, 0, 2**14, [14864, 1418, 3564, 7210]),
    (6, 65_533, 2**16 - 1, [9777, 40421, 20446, 2256]),
    (7, 65_534, 2**16, [38542, 55602, 35810, 62689]),
    (8, 65_536, 2**16 + 2, [49688, 6820, 13243, 60162]),
    (2**63, 10**9, 70_000, [23089, 42377, 54348, 17063]),
    (1, 10**12, 162_770, [54387, 137814, 137159, 146638, 20010, 115982, 136412, 50537]),
    (9, 2**18 - 2, 2**18, [143306, 48218, 12105, 37928]),
    (10, 0, 2**18 + 2, [131336, 110537, 98160, 122461]),
    (2**64 - 1, 0, 10**6, [29450, 109275, 217130, 166347]),
    (11, 2**31 - 2, 2**31, [793619172, 132142596, 199660786, 1090013985]),
    (12, 2**32 - 2, 2**32, [1909268347, 1619728995, 173634332, 53166285]),
    (13, 2**40, 2**32 + 7, [3093066676, 2776876431, 1613119913, 786699935]),
    (14, 2**61, 2**41 + 3, [684866739382, 93917127167, 652126029026, 93640304333]),
]


@pytest.mark.parametrize(("seed", "first", "size", "pictures"), GOLDEN)
def test_the_order_never_changes(seed, first, size, pictures):
    """A run resumed with a newer release must see the pictures it would have seen."""
    assert list(order_of(seed, first, len(pictures), size)) == pictures


@pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None,
    reason="TensorFlow, whose order this is, is not installed",
)
@given(SEEDS, SIZES, st.integers(0, 2**61))
def test_the_order_equals_that_of_tensorflows_op(seed, size, first):
    assume(size not in ONE_MORE_THAN_A_BLOCK)
    epochs, places = np.divmod(np.arange(first, first + 20), size)
    shuffled = tensorflow().raw_ops.RandomIndexShuffle(
        index=places,
        seed=np.ascontiguousarray(order._keys(seed, epochs).T),
        max_index=np.int64(size - 1),
        rounds=4,
    )
    assert list(order_of(seed, first, 20, size)) == list(shuffled.numpy())


def test_an_order_of_no_pictures_is_refused():
    with pytest.raises(ValueError, match="no order of 0 pictures"):
        order_of(0, 0, 1, 0)
