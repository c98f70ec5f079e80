"""The protocol of a source of pictures: named items, in a fixed order, in chunks."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np


class Item(NamedTuple):
    """One picture before decoding.

    Attributes:
      name: the picture's name, unique within its source.
      read: returns a file's bytes, or uint8 pixels `[height, width]` or `[height, width, channel]`.
      labels: the picture's label values by label name.
    """

    name: str
    read: Callable[[], bytes | np.ndarray]
    labels: Mapping[str, Any]


class Chunk(NamedTuple):
    """A few pictures of one split: the unit of work of a build.

    Attributes:
      split: the official split, "train", "valid" or "test"; None if the source has no official
        splits.
      items: returns the pictures. It is called, and its items are read, in a worker thread.
    """

    split: str | None
    items: Callable[[], Iterable[Item]]


@dataclasses.dataclass(frozen=True)
class Contents:
    """The pictures of a source.

    Attributes:
      count: number of pictures in the chunks.
      chunks: takes the largest number of pictures per chunk, and returns the chunks in order.
      set_aside: pictures found unusable without reading them: name -> reason.
      attribute_names: names of the columns of the label `attributes`, if there is one.
    """

    count: int
    chunks: Callable[[int], Iterator[Chunk]]
    set_aside: dict[str, str]
    attribute_names: Sequence[str] = ()


@runtime_checkable
class Source(Protocol):
    """A source of pictures, such as a folder or an array file."""

    kind: str
    """The source's name in the fingerprint; it does not depend on where the source is stored."""

    left_out: Mapping[str, str] = MappingProxyType({})
    """Files and folders among the pictures that are not used: name -> reason."""
    notes: Sequence[str] = ()
    """Messages about the source for the user, one line each."""

    def signature(self) -> Any:
        """Returns a JSON-able value that changes with the data; reads none of the pictures."""

    def contents(self) -> Contents:
        """Lists the pictures. Called only when the cache must be built."""


def spans(size: int, step: int) -> Iterator[range]:
    """Divides `range(size)` into consecutive ranges of at most `step` elements."""
    return (range(start, min(start + step, size)) for start in range(0, size, step))
