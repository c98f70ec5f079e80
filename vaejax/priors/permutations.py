"""Fixed random permutations that do not depend on the version of any library.

A trained coupling flow is valid only with the permutations that it was trained with. They are
therefore computed here, in integers, and equal those that `numpy.random.default_rng(0)` drew when
the first models were trained.
"""

_MASK_64, _MASK_128 = 2**64 - 1, 2**128 - 1
# PCG64 seeded with 0: state, increment, and the generator's multiplier.
_STATE = 35399562948360463058890781895381311971
_INCREMENT = 87136372517582989555478159403783844777
_MULTIPLIER = 0x2360ED051FC65DA44385DF649FCCF645


def fixed_permutations(size: int, count: int) -> list[list[int]]:
    """Returns `count` fixed permutations of `range(size)`, the same on every machine.

    Fisher-Yates shuffles on PCG64 XSL-RR (O'Neill, "PCG: A family of simple fast space-efficient
    statistically good algorithms for random number generation", 2014).

    Args:
      size: length of each permutation.
      count: number of permutations; a longer list begins with the shorter one.
    """
    numbers = _Pcg64()
    return [_shuffled(numbers, size) for _ in range(count)]


class _Pcg64:
    """A stream of 32-bit numbers: of each 64-bit output the lower half, then the upper half."""

    def __init__(self):
        self._state, self._upper = _STATE, None

    def next_32(self) -> int:
        if self._upper is not None:
            number, self._upper = self._upper, None
            return number
        self._state = (self._state * _MULTIPLIER + _INCREMENT) & _MASK_128
        mixed, turn = (self._state >> 64) ^ (self._state & _MASK_64), self._state >> 122
        output = ((mixed >> turn) | (mixed << (64 - turn))) & _MASK_64
        self._upper = output >> 32
        return output & 0xFFFFFFFF

    def up_to(self, highest: int) -> int:
        """A uniform number in [0, highest], by rejection of greater ones."""
        mask = (1 << highest.bit_length()) - 1
        while (number := self.next_32() & mask) > highest:
            pass
        return number


def _shuffled(numbers: _Pcg64, size: int) -> list[int]:
    order = list(range(size))
    for last in reversed(range(1, size)):
        other = numbers.up_to(last)
        order[last], order[other] = order[other], order[last]
    return order
