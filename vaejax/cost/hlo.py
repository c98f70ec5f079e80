"""Parses the HLO text of a compiled program: instructions, collectives and host transfers."""

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
# The end of the operands, whose types may have parentheses too.
_END = re.compile(r"\)(?:, |$)")
_SPACE = re.compile(r"S\((\d+)\)")
_TILED = re.compile(r"\{([\d,]+):T\(([\d,]+)\)")
_COUNTER = re.compile(r"[su](?:32|64)\[\]")
_NAME = re.compile(r"%[\w.\-]+")
_CALLED = re.compile(
    r"(?:calls|body|to_apply|(?:true|false)_computation)=(%[\w.\-]+)"
    r"|(?:branch|called)_computations=\{(.*?)\}"
)
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_CHANNEL = re.compile(r"channel_id=(\d+)")
# The groups of devices of a collective, in three notations: lists, a grid [groups, devices in a
# group], or axes of a mesh.
_GROUP, _GRID = re.compile(r"replica_groups=\{\{([\d,]+)\}"), re.compile(r"groups=\[\d+,(\d+)\]")
# In the first line of a program.
_DEVICES = re.compile(r"\b(?:replica_count|num_partitions)=(\d+)")
_AXES = re.compile(r"replica_groups=mesh\[(.*?)\] \{(.*?)\}")

_COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
_HOST_CALLS = re.compile(r'custom_call_target="[^"]*(?:callback|[Hh]ost)[^"]*"')
# Marks transfers between TPU slices through their hosts' network; JAX itself never asks for them.
_BETWEEN_SLICES = "xla_megascale_runtime"


class Collective(NamedTuple):
    """One collective operation, which exchanges data between devices.

    Attributes:
      kind: all-reduce, all-gather, reduce-scatter, all-to-all or collective-permute; send for
        a transfer to another slice.
      result: bytes of its result on one device.
      group: number of devices that take part together.
    """

    kind: str
    result: int
    group: int

    @property
    def sent(self) -> float:
        """Bytes that each device sends, in a ring or its equivalent (Patarasuk and Yuan 2009)."""
        share = (self.group - 1) / self.group
        factors = {
            "all-reduce": 2 * share,
            "reduce-scatter": self.group - 1.0,
            "collective-permute": 1.0,
            "send": 1.0,
        }
        return self.result * factors.get(self.kind, share)


class Instruction(NamedTuple):
    """One instruction of a program, a line of its text.

    Attributes:
      root: `ROOT ` if its result is the result of the computation, else empty.
      name: its name, with the leading `%`.
      type: type of the result: an array `f32[8,128]{1,0:T(8,128)S(1)}`, or a tuple of such.
      operation: the opcode, such as `fusion`.
      rest: the rest of the line: operands and attributes.
    """

    root: str
    name: str
    type: str
    operation: str
    rest: str

    def operands(self) -> list[str]:
        """Returns the names of the operands."""
        return _NAME.findall(_END.split(self.rest)[0])

    def called(self) -> list[str]:
        """Returns the names of the computations that it calls; of a loop, only the body."""
        found = _CALLED.findall(self.rest)
        return [name for one, several in found for name in _NAME.findall(one or several)]


class Buffer(NamedTuple):
    """One array of an HLO type.

    Attributes:
      bytes: size of its values in bytes.
      stored: size in bytes including the padding that fills the tiles of its layout.
      space: number of the memory space that it lies in, as text; empty for the main memory.
    """

    bytes: int
    stored: int
    space: str


def buffers(kind: str) -> list[Buffer]:
    """Returns the arrays of an HLO type, such as a tuple, in order.

    Arrays of an element type that is not in `_SIZES`, such as tokens, count 0 bytes.
    """
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
    """Rounds sides up to whole tiles: with `{1,2,0:T(8,128)}` axis 1 to 128s and axis 2 to 8s."""
    if not (tiled := _TILED.match(layout)):
        return sides
    minor_first, tile = _sides(tiled[1]), _sides(tiled[2])
    rounded = list(sides)
    for axis, step in zip(minor_first, reversed(tile)):
        rounded[axis] = -(-sides[axis] // step) * step
    return rounded


class Program:
    """An optimised program, parsed from its text, `compiled.as_text()`.

    Attributes:
      computations: the instructions of each computation, by its name.
      entry: name of the entry computation, which runs first.
    """

    def __init__(self, text: str):
        """Parses `text`."""
        self._text, entry = text, ""
        sizes = _DEVICES.findall(text.partition("\n")[0])
        self._devices = math.prod(int(size) for size in sizes)
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
        """Returns the collectives of one run of the program; a loop's, once for each iteration.

        Raises:
          ValueError: the program has a loop of unknown length.
        """
        # The compiler may split a collective, to overlap it: the parts share a channel, count once.
        found: dict[str, list[Collective]] = {}
        for times, one in self._reached(self.entry):
            if collective := _collective(one, self._devices):
                channel = _CHANNEL.search(one.rest)
                key = f"{collective.kind} {channel[1] if channel else one.name}"
                found.setdefault(key, [collective] * times)
        return [collective for several in found.values() for collective in several]

    def host_transfers(self) -> list[str]:
        """Returns the names of the instructions that exchange data with the host."""
        return [
            one.name
            for _, one in self._reached(self.entry)
            if one.operation in ("infeed", "outfeed")
            or ("is_host_transfer=true" in one.rest and _BETWEEN_SLICES not in one.rest)
            or (one.operation == "custom-call" and _HOST_CALLS.search(one.rest))
        ]

    def has_doubles(self) -> bool:
        """Whether any array holds 64-bit floating-point numbers."""
        return "f64[" in self._text

    def _reached(self, computation: str, times: int = 1) -> Iterator[tuple[int, Instruction]]:
        """Yields every instruction that runs, and how often it does."""
        for one in self.computations[computation]:
            yield times, one
            rounds = self.rounds(one) if one.operation == "while" else 1
            if one.operation in ("all-reduce", "reduce-scatter", "reduce"):
                continue  # they call only the sum of two numbers
            for called in one.called():
                yield from self._reached(called, times * rounds)

    def rounds(self, loop: Instruction) -> int:
        """Returns the number of iterations of a loop.

        Without a trip count from the compiler, the loop is taken to count from 0 to the only
        integer constant in its condition.

        Raises:
          ValueError: the condition does not have exactly one such constant.
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
            raise ValueError(f"the number of iterations of the loop {loop.name} is unknown")
        return constants[0]


def _collective(one: Instruction, devices: int) -> Collective | None:
    """Returns the collective that an instruction is, in a program for so many devices."""
    if one.operation == "send" and _BETWEEN_SLICES in one.rest:
        return Collective("send", buffers(one.type)[0].bytes, 2)
    kind = one.operation.removesuffix("-start")
    if kind not in _COLLECTIVES:
        return None
    size, group = sum(buffer.bytes for buffer in buffers(one.type)), _group(one.rest, devices)
    if one.operation != kind and kind == "all-gather":  # its type holds operand and result
        size = size * group // (group + 1)
    if one.operation != kind and kind == "collective-permute":
        size //= 2
    return Collective(kind, size, group)


def _group(rest: str, devices: int) -> int:
    """Returns how many devices, of all `devices`, take part in a collective together."""
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
    return 2 if "source_target_pairs=" in rest else devices  # pairs, or `replica_groups={}`
