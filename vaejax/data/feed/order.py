"""The order of training pictures: a permutation for every epoch, a function of the seed alone.

It is the order of TensorFlow's op `RandomIndexShuffle`, which older releases of vaejax called
(except for the sizes that `_word_bits` names): a block cipher like Simon (Beaulieu et al.,
https://eprint.iacr.org/2013/404) of four rounds, kept inside the split by cycle walking (Black and
Rogaway, CT-RSA 2002). Any single position can therefore be looked up, in a split of any size.
"""

import functools

import numpy as np
from jaxtyping import Int64, Integer, UInt, UInt64

_MIN_WORD_BITS = 8  # bits of half a cipher block; smaller blocks leave patterns
# Up to this size an epoch's whole permutation is computed at once and cached, in some
# milliseconds per epoch. In a split much smaller than the cipher's block, the cycle walk of a
# single position may take thousands of steps.
_MAX_WHOLE_EPOCH = 2**18


def batch_indices(
    seed: int, positions: Int64[np.ndarray, "*shape"], size: int
) -> Int64[np.ndarray, "*shape"]:
    """Computes the rows of the pictures at some positions of the training order.

    Every epoch has its own permutation; a batch may straddle epochs.

    Args:
      seed: seed of the order.
      positions: numbers of pictures since the beginning of training; the positions of step s are
        s * B to s * B + B - 1, where B is the global batch size.
      size: number of pictures in the split.

    Returns:
      For each position a row of the split, from 0 to `size` - 1.

    Raises:
      ValueError: `size` is less than 1.
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
    """Computes the permutation of one epoch by encrypting the cipher's whole domain."""
    bits = _word_bits(size)
    words = np.arange(2**bits, dtype=np.uint32)  # wide enough for two words of up to 9 bits
    keys = _keys(seed, np.array([epoch])).astype(np.uint32)
    left, right = _encrypted(words[:, None], words, keys, bits)
    encrypted = ((left << bits) | right).ravel().astype(np.int64)
    order, onward = encrypted[:size], encrypted.copy()
    onward[:size] = np.arange(size)  # the walk ends inside the split
    while np.any(order >= size):
        order = onward.take(order)
        onward = onward.take(onward)  # pointer doubling
    order.flags.writeable = False  # the cache returns this array to every caller
    return order


def _shuffled(
    places: Int64[np.ndarray, " position"], keys: UInt64[np.ndarray, "3 position"], size: int
) -> Int64[np.ndarray, " position"]:
    """Computes the pictures at `places` of epochs with these keys, by cycle walking."""
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
    """Returns half the bits of the smallest cipher block that holds every picture's number.

    For 2**16 + 1, 2**18 + 1, ... pictures the block has two bits more than TensorFlow's, which
    truncates the last picture's number: there that picture never occurs, and another one twice.
    """
    return max(_MIN_WORD_BITS, ((size - 1).bit_length() + 1) // 2)


def _encrypted(
    left: UInt[np.ndarray, "..."],
    right: UInt[np.ndarray, "..."],
    keys: UInt[np.ndarray, "3 #position"],
    bits: int,
) -> tuple[UInt[np.ndarray, "..."], UInt[np.ndarray, "..."]]:
    """Encrypts blocks with four rounds of the cipher.

    A block is two words of `bits` bits, each in an integer type at least twice as wide.
    """
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
    """Derives the cipher's keys, of which it uses the low bits, at most 32.

    The cipher takes its round keys directly from the numbers given: with small ones it is close
    to the identity. Hashing prevents that.
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
