"""What a compiled program does, read from its text: its instructions, collectives, transfers."""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

_SIZES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2} | {
    "f32": 4, "s32": 4, "u32": 4, "f64": 8, "s64": 8, "u64": 8
}  # fmt: skip
_HEADER = re.compile(r"(ENTRY )?(%[\w.\-]+) .*\{")
_INSTRUCTION = re.compile(r"\s+(ROOT )?(%[\w.\-]+) = (\(.*?\)(?= [\w\-]+\()|\S+) ([\w\-]+)\((.*)")
_ARRAY = re.compile(r"\b(\w+)\[([\d,]*)\](\{[^}]*\})?")
# Of operands, whose types have parentheses too.
_END = re.compile(r"\)(?:, |$)")
_SPACE = re.compile(r"S\((\d+)\)")
_TILED = re.compile(r"\{([\d,]+):T\(([\d,]+)\)")
_COUNTER = re.compile(r"[su](?:32|64)\[\]")
_NAME = re.compile(r"%[\w.\-]+")
_CALLED = re.compile(
    r"(?:calls|body|to_apply)=(%[\w.\-]+)|(?:branch|called)_computations=\{(.*?)\}"
)
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_CHANNEL = re.compile(r"channel_id=(\d+)")
# The groups of a collective: written out, as a grid of so many groups of so many, or as the axes
# of a mesh.
_GROUP, _GRID = re.compile(r"replica_groups=\{\{([\d,]+)\}"), re.compile(r"groups=\[\d+,(\d+)\]")
_AXES = re.compile(r"replica_groups=mesh\[(.*?)\] \{(.*?)\}")

_COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
_HOST_CALLS = re.compile(r'custom_call_target="[^"]*(?:callback|[Hh]ost)[^"]*"')
# Slices send to each other through their hosts' network; JAX never asks for this itself.
_BETWEEN_SLICES = "xla_megascale_runtime"


class Collective(NamedTuple):
    """What devices exchange.

    Attributes:
      kind: all-reduce, all-gather, reduce-scatter, all-to-all or collective-permute; send for
        what goes to another slice.
      result: bytes of its result on one device.
      group: devices that take part together.
    """

    kind: str
    result: int
    group: int

    @property
    def sent(self) -> float:
        """Bytes that each device sends, in a ring or its like (Patarasuk and Yuan 2009)."""
        share = (self.group - 1) / self.group
        factors = {
            "all-reduce": 2 * share,
            "reduce-scatter": self.group - 1.0,
            "collective-permute": 1.0,
            "send": 1.0,
        }
        return self.result * factors.get(self.kind, share)


class Instruction(NamedTuple):
    """One line of a program.

    Attributes:
      root: `ROOT ` where the computation's result is this one's, or empty.
      name: with its `%`.
      type: type of the result: an array `f32[8,128]{1,0:T(8,128)S(1)}`, or a tuple of such.
      operation: what it does, such as `fusion`.
      rest: operands, and all that is said of it.
    """

    root: str
    name: str
    type: str
    operation: str
    rest: str

    def operands(self) -> list[str]:
        """Their names."""
        return _NAME.findall(_END.split(self.rest)[0])

    def called(self) -> list[str]:
        """Names of the computations that it runs."""
        found = _CALLED.findall(self.rest)
        return [name for one, several in found for name in _NAME.findall(one or several)]


class Buffer(NamedTuple):
    """An array of a type.

    Attributes:
      bytes: its size.
      stored: with what its layout adds to fill tiles.
      space: the memory that it lies in; empty for the main one.
    """

    bytes: int
    stored: int
    space: str


def buffers(kind: str) -> list[Buffer]:
    """The arrays of an HLO type, such as a tuple, in order."""
    found = []
    for name, written, layout in _ARRAY.findall(kind):
        number, space = _SIZES.get(name, 0), _SPACE.search(layout)
        sides = _sides(written)
        size, stored = (number * math.prod(each) for each in (sides, _in_tiles(sides, layout)))
        found.append(Buffer(size, stored, space[1] if space else ""))
    return found


def _sides(written: str) -> list[int]:
    return [int(side) for side in written.split(",") if side]


def _in_tiles(sides: list[int], layout: str) -> list[int]:
    """The sides rounded up to the tile: of `{1,2,0:T(8,128)}` axis 1 to 128s and axis 2 to 8s."""
    if not (tiled := _TILED.match(layout)):
        return sides
    minor_first, tile = _sides(tiled[1]), _sides(tiled[2])
    rounded = list(sides)
    for axis, step in zip(minor_first, reversed(tile)):
        rounded[axis] = -(-sides[axis] // step) * step
    return rounded


class Program:
    """The text of an optimised program, `compiled.as_text()`, taken apart.

    Attributes:
      computations: the instructions of each, by its name.
      entry: the name of the one that runs first.
    """

    def __init__(self, text: str):
        """Takes it apart."""
        self._text, entry = text, ""
        self.computations: dict[str, list[Instruction]] = {}
        lines: list[Instruction] = []
        for line in text.splitlines():
            if header := _HEADER.match(line):
                lines = self.computations.setdefault(header[2], [])
                entry = header[2] if header[1] else entry
            elif instruction := _INSTRUCTION.match(line):
                lines.append(Instruction(*instruction.groups()))
        self.entry = entry

    def collectives(self) -> list[Collective]:
        """What one run of the program exchanges, a loop's as often as it goes round.

        Raises:
          ValueError: the program has a loop of unknown length.
        """
        # The parts into which the compiler cuts a collective, to overlap it, share its channel.
        found: dict[str, list[Collective]] = {}
        for times, one in self._reached(self.entry):
            if collective := _collective(one):
                channel = _CHANNEL.search(one.rest)
                key = f"{collective.kind} {channel[1] if channel else one.name}"
                found.setdefault(key, [collective] * times)
        return [collective for several in found.values() for collective in several]

    def host_transfers(self) -> list[str]:
        """Names of instructions that exchange data with the host."""
        return [
            one.name
            for _, one in self._reached(self.entry)
            if one.operation in ("infeed", "outfeed")
            or ("is_host_transfer=true" in one.rest and _BETWEEN_SLICES not in one.rest)
            or (one.operation == "custom-call" and _HOST_CALLS.search(one.rest))
        ]

    def has_doubles(self) -> bool:
        """Whether any number takes 64 bits of floating point."""
        return "f64[" in self._text

    def _reached(self, computation: str, times: int = 1) -> Iterator[tuple[int, Instruction]]:
        """Every instruction that runs, and how often."""
        for one in self.computations[computation]:
            yield times, one
            rounds = self.rounds(one) if one.operation == "while" else 1
            if one.operation in ("all-reduce", "reduce-scatter", "reduce"):
                continue  # what they apply is a sum of two numbers
            for called in one.called():
                yield from self._reached(called, times * rounds)

    def rounds(self, loop: Instruction) -> int:
        """How often a loop goes round: all here count from 0 to a constant in the condition.

        Raises:
          ValueError: this one does not.
        """
        if known := _TRIPS.search(loop.rest):
            return int(known[1])
        (condition,) = re.findall(r"condition=(%[\w.\-]+)", loop.rest)
        constants = [
            int(one.rest.partition(")")[0])
            for one in self.computations[condition]
            if one.operation == "constant" and _COUNTER.match(one.type)
        ]
        if len(constants) != 1:
            raise ValueError(f"nobody knows how often the loop {loop.name} goes round")
        return constants[0]


def _collective(one: Instruction) -> Collective | None:
    if one.operation == "send" and _BETWEEN_SLICES in one.rest:
        return Collective("send", buffers(one.type)[0].bytes, 2)
    kind = one.operation.removesuffix("-start")
    if kind not in _COLLECTIVES:
        return None
    size, group = sum(buffer.bytes for buffer in buffers(one.type)), _group(one.rest)
    if one.operation != kind and kind == "all-gather":  # names operand and result
        size = size * group // (group + 1)
    if one.operation != kind and kind == "collective-permute":
        size //= 2
    return Collective(kind, size, group)


def _group(rest: str) -> int:
    """How many devices take part in a collective together."""
    if written := _GROUP.search(rest):
        return len(written[1].split(","))
    if grid := _GRID.search(rest):
        return int(grid[1])
    if axes := _AXES.search(rest):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", axes[1]))
        group = 1
        for axis in re.findall(r"'(\w+)'", axes[2]):
            group *= int(sizes[axis])
        return group
    return 2  # a collective-permute names pairs
