"""Counts the bytes that a compiled program moves on one device.

XLA's own totals count the body of a loop once. They also do not distinguish a TPU's main memory
(HBM) from the memories beside its arithmetic units (VMEM, and CMEM on v4), which are more than ten
times as fast. The program's text does: layouts ending in `S(1)` or `S(3)` are near.
"""

from typing import NamedTuple

from vaejax.cost.hlo import Instruction, Program, buffers

_NEAR = ("1", "3")
# These only name existing data. (An asynchronous transfer is counted at its start.)
_FREE = ("parameter", "constant", "tuple", "get-tuple-element", "bitcast")
_FREE_CALLS = ('custom_call_target="AllocateBuffer"', 'custom_call_target="ConcatBitcast"')


class Traffic(NamedTuple):
    """Bytes that the instructions of a program read and write on one device.

    Attributes:
      hbm: bytes in its main memory.
      near: bytes in the memories beside its arithmetic units.
    """

    hbm: int
    near: int

    def times(self, count: int | float) -> "Traffic":
        """Returns the traffic of `count` runs, or of a share of one."""
        return Traffic(round(count * self.hbm), round(count * self.near))

    def plus(self, other: "Traffic") -> "Traffic":
        """Returns the sum of both."""
        return Traffic(self.hbm + other.hbm, self.near + other.near)


def traffic(program: Program, costlier: float = 1.0) -> Traffic:
    """Counts what one run of the program moves: each operand and result once, in whole tiles.

    Where an instruction only reads or writes slices of an array, only the slices count; this also
    holds for the arrays that a loop iterates over.

    Args:
      program: the compiled program.
      costlier: share of the runs in which a branch takes the side that moves most; in the others it
        takes the side that moves least.

    Raises:
      ValueError: the program has a loop of unknown length.
    """
    return _of_computation(program, program.entry, costlier)


def _of_computation(program: Program, name: str, costlier: float) -> Traffic:
    seen: dict[str, Instruction] = {}
    total = Traffic(0, 0)
    for one in program.computations[name]:
        seen[one.name] = one
        if one.operation in ("while", "call"):
            (body,) = one.called()
            rounds = program.rounds(one) if one.operation == "while" else 1
            total = total.plus(_of_computation(program, body, costlier).times(rounds))
        elif one.operation == "conditional":
            sides = sorted(_of_computation(program, side, costlier) for side in one.called())
            total = total.plus(sides[-1].times(costlier)).plus(sides[0].times(1 - costlier))
        else:
            total = total.plus(_of_instruction(program, one, seen))
    return total


def _of_instruction(program: Program, one: Instruction, seen: dict[str, Instruction]) -> Traffic:
    free = one.operation in _FREE or any(call in one.rest for call in _FREE_CALLS)
    if free or one.operation.endswith("-done"):
        return Traffic(0, 0)
    if one.operation == "slice-start":
        source, target = buffers(one.type)[:2]
        return _in(source.space, target.stored).plus(_in(target.space, target.stored))
    total = Traffic(0, 0)
    for part, buffer in zip(_written(program, one, seen), buffers(one.type), strict=True):
        total = total.plus(_in(buffer.space, buffer.stored if part is None else part))
    # The result type of most asynchronous starts holds source and target: both are counted already.
    if one.operation.endswith("-start") and one.operation != "all-reduce-start":
        return total
    for position, operand in enumerate(one.operands()):
        part = _read(program, one, position)
        for buffer in buffers(seen[operand].type) if operand in seen else []:
            total = total.plus(_in(buffer.space, buffer.stored if part is None else part))
    return total


def _in(space: str, size: int) -> Traffic:
    return Traffic(size * (space == ""), size * (space in _NEAR))


def _size(kind: str) -> int:
    return sum(buffer.stored for buffer in buffers(kind))


def _read(program: Program, one: Instruction, position: int) -> int | None:
    """Returns the bytes that are read of an operand; None for all."""
    if one.operation == "fusion":
        return _read_inside(program, one.called()[0], position)[0]
    if position == 0 and one.operation in ("slice", "dynamic-slice", "gather"):
        return _size(one.type)
    if position == 0 and one.operation == "dynamic-update-slice":
        return 0
    return None


def _read_inside(program: Program, fusion: str, position: int) -> tuple[int | None, bool]:
    """Does the same for a fusion's operand; also tells whether the result is the operand itself."""
    names, read, passed_on = set(), 0, False
    for one in program.computations[fusion]:
        if one.operation == "parameter" and one.rest.startswith(f"{position})"):
            names.add(one.name)
        for at, operand in enumerate(one.operands()):
            if operand not in names or one.operation == "tuple":
                continue
            if one.operation == "fusion":
                part, same = _read_inside(program, one.called()[0], at)
            else:
                same = at == 0 and one.operation in ("bitcast", "dynamic-update-slice")
                part = 0 if same else _read(program, one, at)
            if part is None:
                return None, False
            read += part
            if same:
                names.add(one.name)
                passed_on |= bool(one.root)
    return read, passed_on


def _written(program: Program, one: Instruction, seen: dict[str, Instruction]) -> list[int | None]:
    """Returns the bytes that are written of each array of a result; None for all."""
    if one.operation == "dynamic-update-slice":
        update = seen.get(one.operands()[1])
        return [update and _size(update.type)]
    if one.operation == "fusion":
        return _written_inside(program, one.called()[0])
    return [None] * len(buffers(one.type))


def _written_inside(program: Program, fusion: str) -> list[int | None]:
    inside = {one.name: one for one in program.computations[fusion]}
    (root,) = [one for one in inside.values() if one.root]
    if root.operation == "tuple":
        return [_updated(inside[name], inside) for name in root.operands()]
    return [_updated(root, inside)] * len(buffers(root.type))


def _updated(result: Instruction, inside: dict[str, Instruction]) -> int | None:
    """Returns the bytes that updates write into a fusion's operand; None for a new array."""
    written = 0
    while result.operation in ("bitcast", "dynamic-update-slice"):
        if result.operation == "dynamic-update-slice":
            written += _size(inside[result.operands()[1]].type)
        result = inside[result.operands()[0]]
    return written if written and result.operation == "parameter" else None
