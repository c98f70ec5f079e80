"""What a compiled program does, read from its text: bytes moved, collectives, transfers.

XLA's own totals count the body of a loop once, and a TPU's main memory (HBM) and the memories
beside its arithmetic units (VMEM, and CMEM on v4) alike, though those are more than ten times as
fast. The text tells them apart: layouts ending in `S(1)` or `S(3)` are near.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

_SIZES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2} | {
    "f32": 4, "s32": 4, "u32": 4, "f64": 8, "s64": 8, "u64": 8
}  # fmt: skip
_HEADER = re.compile(r"(ENTRY )?(%[\w.\-]+) .*\{")
_INSTRUCTION = re.compile(r"\s+(?:ROOT )?(%[\w.\-]+) = (\(.*?\)(?= [\w\-]+\()|\S+) ([\w\-]+)\((.*)")
_ARRAY = re.compile(r"\b(\w+)\[([\d,]*)\](\{[^}]*\})?")
_SPACE = re.compile(r"S\((\d+)\)")
_COUNTER = re.compile(r"[su](?:32|64)\[\]")
_NEAR = ("1", "3")
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

# These name what is there already; a transfer under way is counted where it starts.
_FREE = ("parameter", "constant", "tuple", "get-tuple-element", "bitcast")
_COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
_HOST_CALLS = re.compile(r'custom_call_target="[^"]*(?:callback|[Hh]ost)[^"]*"')
# Slices send to each other through their hosts' network; JAX never asks for this itself.
_BETWEEN_SLICES = "xla_megascale_runtime"


class Traffic(NamedTuple):
    """Bytes that the instructions of a program read and write on one device.

    Attributes:
      hbm: in its main memory.
      near: in the memories beside its arithmetic units.
    """

    hbm: int
    near: int

    def times(self, count: int) -> "Traffic":
        """Of so many runs."""
        return Traffic(count * self.hbm, count * self.near)

    def plus(self, other: "Traffic") -> "Traffic":
        """Of both."""
        return Traffic(self.hbm + other.hbm, self.near + other.near)


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


class _Instruction(NamedTuple):
    name: str
    type: str
    operation: str
    rest: str


class Program:
    """The text of an optimised program, `compiled.as_text()`, taken apart."""

    def __init__(self, text: str):
        """Takes it apart."""
        self._text, self._computations, entry = text, {}, ""
        lines: list[_Instruction] = []
        for line in text.splitlines():
            if header := _HEADER.match(line):
                lines = self._computations.setdefault(header[2], [])
                entry = header[2] if header[1] else entry
            elif instruction := _INSTRUCTION.match(line):
                lines.append(_Instruction(*instruction.groups()))
        self._entry = entry

    def traffic(self) -> Traffic:
        """What the instructions move, each operand and result once.

        Raises:
          ValueError: the program has a loop of unknown length, or branches.
        """
        return self._traffic_of(self._entry)

    def collectives(self) -> list[Collective]:
        """What one run of the program exchanges, a loop's as often as it goes round.

        Raises:
          ValueError: the program has a loop of unknown length.
        """
        # The parts into which the compiler cuts a collective, to overlap it, share its channel.
        found: dict[str, list[Collective]] = {}
        for times, one in self._reached(self._entry):
            if collective := _collective(one):
                channel = _CHANNEL.search(one.rest)
                key = f"{collective.kind} {channel[1] if channel else one.name}"
                found.setdefault(key, [collective] * times)
        return [collective for several in found.values() for collective in several]

    def host_transfers(self) -> list[str]:
        """Names of instructions that exchange data with the host."""
        return [
            one.name
            for _, one in self._reached(self._entry)
            if one.operation in ("infeed", "outfeed")
            or ("is_host_transfer=true" in one.rest and _BETWEEN_SLICES not in one.rest)
            or (one.operation == "custom-call" and _HOST_CALLS.search(one.rest))
        ]

    def has_doubles(self) -> bool:
        """Whether any number takes 64 bits of floating point."""
        return "f64[" in self._text

    def _reached(self, computation: str, times: int = 1) -> Iterator[tuple[int, _Instruction]]:
        """Every instruction that runs, and how often."""
        for one in self._computations[computation]:
            yield times, one
            rounds = self._rounds(one) if one.operation == "while" else 1
            if one.operation in ("all-reduce", "reduce-scatter", "reduce"):
                continue  # what they apply is a sum of two numbers
            for called in _called(one.rest):
                yield from self._reached(called, times * rounds)

    def _rounds(self, loop: _Instruction) -> int:
        """How often a loop goes round: all here count from 0 to a constant in the condition."""
        if known := _TRIPS.search(loop.rest):
            return int(known[1])
        (condition,) = re.findall(r"condition=(%[\w.\-]+)", loop.rest)
        constants = [
            int(one.rest.partition(")")[0])
            for one in self._computations[condition]
            if one.operation == "constant" and _COUNTER.match(one.type)
        ]
        if len(constants) != 1:
            raise ValueError(f"nobody knows how often the loop {loop.name} goes round")
        return constants[0]

    def _traffic_of(self, computation: str) -> Traffic:
        types: dict[str, str] = {}
        total = Traffic(0, 0)
        for one in self._computations[computation]:
            types[one.name] = one.type
            if one.operation == "while":
                (body,) = re.findall(r"body=(%[\w.\-]+)", one.rest)
                total = total.plus(self._traffic_of(body).times(self._rounds(one)))
                continue
            if one.operation == "conditional":
                raise ValueError("the program has branches: nobody knows which one runs")
            if one.operation in _FREE or one.operation.endswith("-done"):
                continue
            moved = [one.type]
            if not one.operation.endswith("-start"):  # whose result names source and target already
                operands = one.rest.split(", metadata=")[0].split(", calls=")[0]
                moved += [types.get(operand, "") for operand in _NAME.findall(operands)]
            for kind in moved:
                total = total.plus(_bytes(kind))
        return total


def _called(rest: str) -> list[str]:
    return [name for one, more in _CALLED.findall(rest) for name in _NAME.findall(one or more)]


def _collective(one: _Instruction) -> Collective | None:
    if one.operation == "send" and _BETWEEN_SLICES in one.rest:
        (first, *_) = _ARRAY.finditer(one.type)
        return Collective("send", sum(_bytes(first[0])), 2)
    kind = one.operation.removesuffix("-start")
    if kind not in _COLLECTIVES:
        return None
    size, group = sum(_bytes(one.type)), _group(one.rest)
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


def _bytes(kind: str) -> Traffic:
    hbm = near = 0
    for name, sides, layout in _ARRAY.findall(kind):
        size = _SIZES.get(name, 0)
        for side in filter(None, sides.split(",")):
            size *= int(side)
        space = _SPACE.search(layout)
        if space is None:
            hbm += size
        elif space[1] in _NEAR:
            near += size
    return Traffic(hbm, near)
