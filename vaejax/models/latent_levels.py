"""The layout of a ladder's latents: the shapes and the numbering of the groups at each level."""

import math
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Int


class Levels(NamedTuple):
    """The levels of a ladder, numbered from 0, the finest; each halves height and width.

    Attributes:
      image_shape: height, width and channels of the pictures.
      patch: side in pixels of the square that the finest level sees as one position.
      blocks: number of encoder blocks at each level, finest first; as many decoder blocks, each
        with one group of latents. A level may have none.
      latent: channels of a group of latents.
    """

    image_shape: tuple[int, int, int]
    patch: int
    blocks: tuple[int, ...]
    latent: int

    def size(self, level: int) -> tuple[int, int]:
        """The rows and columns of a level, rounded up."""
        unit = self.patch * 2**level
        return math.ceil(self.image_shape[0] / unit), math.ceil(self.image_shape[1] / unit)

    def inhabited(self) -> list[int]:
        """The levels that have groups of latents, coarsest first."""
        return [level for level in reversed(range(len(self.blocks))) if self.blocks[level]]

    def latent_shapes(self) -> list[tuple[int, int, int]]:
        """The (rows, columns, channels) of a group at each level of `inhabited`."""
        return [(*self.size(level), self.latent) for level in self.inhabited()]

    def group_numbers(self) -> list[Int[Array, "group"]]:
        """The numbers of the groups at each level of `inhabited`; 0 is the top (coarsest) group."""
        numbers, first = [], 0
        for level in self.inhabited():
            numbers.append(first + jnp.arange(self.blocks[level]))
            first += self.blocks[level]
        return numbers

    def by_group(self, of_level: list) -> tuple:
        """Repeats one value of each level of `inhabited` for each of its groups."""
        pairs = zip(self.inhabited(), of_level)
        return tuple(value for level, value in pairs for _ in range(self.blocks[level]))
