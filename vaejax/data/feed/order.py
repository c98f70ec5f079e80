"""The order of training pictures: a permutation for every epoch, a function of the seed alone.

It is the order of TensorFlow's op `RandomIndexShuffle`, which older releases called (but for the
sizes that `_word_bits` names): a block cipher like Simon (Beaulieu et al.,
https://eprint.iacr.org/2013/404) of four rounds, kept inside the split by cycle walking (Black and
Rogaway, CT-RSA 2002). So any position can be looked up alone, in a split of any size.
"""

import functools

import numpy as np
from jaxtyping import Int64, Integer, UInt, UInt64

_MIN_WORD_BITS = 8  # of half a cipher block: smaller blocks leave patterns
# Up to this size all pictures of an epoch are put in order at once and kept: some milliseconds
# for each epoch. In a split much smaller than its block, a position alone may walk for thousands
# of rounds.
_MAX_WHOLE_EPOCH = 2**18


def batch_indices(
    seed: int, positions: Int64[np.ndarray, "*shape"], size: int
) -> Int64[np.ndarray, "*shape"]:
    """Which pictures stand at `positions`.

    Every epoch is a permutation of its own; a batch may straddle epochs.

    Args:
      seed: seed of the order.
      positions: counted since the beginning; those of step s are s times the global batch size
        and what follows.
      size: pictures in the split.

    Raises:
      ValueError: there are no pictures.
    """
    if size < 1:
        raise ValueError(f"no order of {size} pictures")
    epochs, places = np.divmod(positions, size)
    if size > _MAX_WHOLE_EPOCH:
        keys = _keys(seed, epochs.ravel())
        return _shuffled(places.ravel(), keys, size).reshape(positions.shape)
    index = np.empty_like(places)
    for epoch in np.unique(epochs):
        there = epochs == epoch
        index[there] = _epoch_order(seed, int(epoch), size)[places[there]]
    return index


@functools.lru_cache(maxsize=4)
def _epoch_order(seed: int, epoch: int, size: int) -> Int64[np.ndarray, " size"]:
    """The permutation of one epoch, by way of the cipher's whole block."""
    bits = _word_bits(size)
    words = np.arange(2**bits, dtype=np.uint32)  # twice a word of up to 9 bits fits
    keys = _keys(seed, np.array([epoch])).astype(np.uint32)
    left, right = _encrypted(words[:, None], words, keys, bits)
    encrypted = ((left << bits) | right).ravel().astype(np.int64)
    order, onward = encrypted[:size], encrypted.copy()
    onward[:size] = np.arange(size)  # whoever is inside the split has arrived
    while np.any(order >= size):
        order = onward.take(order)
        onward = onward.take(onward)  # twice as far
    order.flags.writeable = False  # every caller gets this array
    return order


def _shuffled(
    places: Int64[np.ndarray, " position"], keys: UInt64[np.ndarray, "3 position"], size: int
) -> Int64[np.ndarray, " position"]:
    """The pictures at `places` of epochs that have these keys."""
    bits = _word_bits(size)
    index = places.astype(np.uint64)
    outside = np.arange(len(index))
    while len(outside):
        block = index[outside]
        left, right = _encrypted(block >> bits, block & (2**bits - 1), keys[:, outside], bits)
        index[outside] = (left << bits) | right
        outside = outside[index[outside] >= size]
    return index.astype(np.int64)


def _word_bits(size: int) -> int:
    """Half the bits of the cipher's block, the smallest that holds every picture's number.

    For 2**16 + 1, 2**18 + 1, ... pictures it has two bits more than TensorFlow's, which cuts off
    the last picture's number: that picture never came there, and another one came twice.
    """
    return max(_MIN_WORD_BITS, ((size - 1).bit_length() + 1) // 2)


def _encrypted(
    left: UInt[np.ndarray, "..."],
    right: UInt[np.ndarray, "..."],
    keys: UInt[np.ndarray, "3 #position"],
    bits: int,
) -> tuple[UInt[np.ndarray, "..."], UInt[np.ndarray, "..."]]:
    """Four rounds of the cipher on blocks of two words of `bits` in twice as wide numbers."""
    mask = 2**bits - 1
    first, second, third = keys & mask

    def mixed(word):
        # Rotations to the left by 1, 8 and 2 bits.
        twice = word | (word << bits)
        return (((twice >> (bits - 1)) & (twice >> (bits - 8))) ^ (twice >> (bits - 2))) & mask

    twice = third | (third << bits)
    fourth = (first ^ (twice >> 3) ^ (twice >> 4) ^ (0xFFFFFFFC & mask) ^ 1) & mask
    for even, odd in ((first, second), (third, fourth)):
        left = left ^ mixed(right) ^ even
        right = right ^ mixed(left) ^ odd
    return left, right


def _keys(seed: int, epochs: Int64[np.ndarray, " epoch"]) -> UInt64[np.ndarray, "3 epoch"]:
    """The cipher's keys, of which it takes the low bits, at most 32.

    Its keys are cut straight from the numbers given: from small ones it makes something close to
    the identity. Hashing cures that.
    """
    keys = [_hashed(_hashed(np.uint64(seed % 2**64)) ^ epochs.astype(np.uint64))]
    keys.append(_hashed(keys[-1]))
    keys.append(_hashed(keys[-1]))
    return np.stack(keys)


def _hashed(numbers: Integer[np.ndarray, "..."] | np.uint64) -> UInt64[np.ndarray, "..."]:
    """SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): a bijective hash of 64 bits."""
    mixed = np.asarray(numbers, np.uint64) + np.array(0x9E3779B97F4A7C15, np.uint64)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.array(0xBF58476D1CE4E5B9, np.uint64)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.array(0x94D049BB133111EB, np.uint64)
    return np.asarray(mixed ^ (mixed >> np.uint64(31)))
