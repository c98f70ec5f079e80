"""What maps pictures, or pairs of pictures, to numbers, and the protocol that defines these."""

import hashlib
from collections.abc import Callable, Mapping
from typing import NamedTuple

from jaxtyping import PyTree

from vaejax.files.strict_json import dumps


class Extractor(NamedTuple):
    """A pure function that maps each picture of a batch to one row of numbers.

    Attributes:
      name: the name that readers see, such as `VGG16 block 3`.
      protocol: everything that two numbers must share to be comparable: the weights' file and
        SHA-256, resize, scaling, layer.
      params: weights of the network; an empty dict where there are none.
      apply: maps (params, pictures uint8 `[batch, height, width, channel]`) to float32
        `[batch, feature]`; can be compiled by `jax.jit`.
    """

    name: str
    protocol: Mapping[str, str | int | float]
    params: PyTree
    apply: Callable

    def digest(self) -> str:
        """Returns 16 hexadecimal digits that differ wherever name or protocol differ."""
        described = dumps({"name": self.name, **dict(sorted(self.protocol.items()))})
        return hashlib.sha256(described.encode()).hexdigest()[:16]


class Distance(NamedTuple):
    """A pure function that maps each pair of pictures to one distance.

    Attributes:
      name: the name that readers see, such as `LPIPS`.
      protocol: everything that two numbers must share to be comparable.
      params: weights of the network.
      apply: maps (params, pictures, pictures) to float32 `[batch]`; can be compiled by `jax.jit`.
        Pictures are 0..255 and `[batch, height, width, channel]`.
    """

    name: str
    protocol: Mapping[str, str | int | float]
    params: PyTree
    apply: Callable
