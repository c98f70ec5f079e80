"""The layout of a ladder's latents: shapes and numbers of its groups at each level."""

import math
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Int


class Levels(NamedTuple):
    """The levels of a ladder, finest first; each halves height and width.

    Attributes:
      image_shape: height, width and channels.
      patch: side of the square of pixels that the finest level sees as one position.
      blocks: number of blocks of encoder and decoder, and groups of latents, at each level.
      latent: channels of a group.
    """

    image_shape: tuple[int, int, int]
    patch: int
    blocks: tuple[int, ...]
    latent: int

    def size(self, level: int) -> tuple[int, int]:
        """Rows and columns of a level."""
        unit = self.patch * 2**level
        return math.ceil(self.image_shape[0] / unit), math.ceil(self.image_shape[1] / unit)

    def inhabited(self) -> list[int]:
        """The levels that have groups, coarsest first."""
        return [level for level in reversed(range(len(self.blocks))) if self.blocks[level]]

    def latent_shapes(self) -> list[tuple[int, int, int]]:
        """Rows, columns and channels of a group at each inhabited level."""
        return [(*self.size(level), self.latent) for level in self.inhabited()]

    def group_numbers(self) -> list[Int[Array, "group"]]:
        """The numbers of the groups of each inhabited level, counted from the top."""
        numbers, first = [], 0
        for level in self.inhabited():
            numbers.append(first + jnp.arange(self.blocks[level]))
            first += self.blocks[level]
        return numbers

    def by_group(self, of_level: list) -> tuple:
        """One value of each inhabited level, repeated for each of its groups."""
        pairs = zip(self.inhabited(), of_level)
        return tuple(value for level, value in pairs for _ in range(self.blocks[level]))
