"""The protocol of a source of pictures: named items, in a fixed order, in chunks."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np


class Item(NamedTuple):
    """One picture before decoding."""

    name: str
    read: Callable[[], bytes | np.ndarray]  # a file's bytes, or uint8 pixels
    labels: Mapping[str, Any]


class Chunk(NamedTuple):
    """A few pictures of one split: the unit of work of a build.

    `items` is called, and its items are read, in a worker thread. Split None: the source has no
    official splits.
    """

    split: str | None
    items: Callable[[], Iterable[Item]]


@dataclasses.dataclass(frozen=True)
class Contents:
    """A source, listed."""

    count: int
    chunks: Callable[[int], Iterator[Chunk]]  # pictures a chunk -> chunks
    set_aside: dict[str, str]  # pictures found unusable without reading them: name -> reason
    attribute_names: Sequence[str] = ()


@runtime_checkable
class Source(Protocol):
    """Where pictures come from."""

    kind: str
    """What the fingerprint calls the source; says nothing of where it lies."""

    left_out: Mapping[str, str] = MappingProxyType({})
    """What lies among the pictures and is none that can be used: name -> reason."""
    notes: Sequence[str] = ()
    """What else is to be said of the source, a line each."""

    def signature(self) -> Any:
        """Everything that changes when the data change, JSON-able, found without reading it."""

    def contents(self) -> Contents:
        """Lists the pictures. Called only when the cache must be built."""


def spans(size: int, step: int) -> Iterator[range]:
    """`range(size)` in pieces of at most `step`."""
    return (range(start, min(start + step, size)) for start in range(0, size, step))
