"""How many bytes a program compiled for a TPU moves, by the memory they lie in.

The compiler's own total counts the chip's main memory (HBM) and the vector memory beside its
arithmetic units (VMEM) alike, though the second is more than ten times as fast. Its text tells
them apart: layouts ending in `S(1)` are in VMEM.
"""

import re
from typing import NamedTuple

_SIZES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2} | {
    "f32": 4, "s32": 4, "u32": 4, "f64": 8, "s64": 8, "u64": 8
}  # fmt: skip
_INSTRUCTION = re.compile(r"\s+(?:ROOT )?(%[\w.\-]+) = (\(.*?\)(?= [\w\-]+\()|\S+) ([\w\-]+)\((.*)")
_ARRAY = re.compile(r"\b(\w+)\[([\d,]*)\](\{[^}]*\})?")
_SPACE = re.compile(r"S\((\d+)\)")
_NAME = re.compile(r"%[\w.\-]+")
# These name what is there already; a transfer under way is counted where it starts.
_FREE = ("parameter", "constant", "tuple", "get-tuple-element", "bitcast")


class Traffic(NamedTuple):
    """Bytes that the instructions of a program read and write."""

    hbm: int
    vmem: int


def traffic(text: str) -> Traffic:
    """What the instructions of an optimised program move, each operand and result once.

    Args:
      text: `compiled.as_text()`, for a TPU.

    Raises:
      ValueError: the program has loops or branches, whose bytes nobody can count.
    """
    types: dict[str, str] = {}
    hbm = vmem = 0
    for line in text[text.index("\nENTRY ") :].splitlines()[2:]:
        match = _INSTRUCTION.match(line)
        if not match:
            continue
        name, kind, operation, rest = match.groups()
        types[name] = kind
        if operation in ("while", "conditional"):
            raise ValueError(f"the program has a {operation}: nobody knows how often it runs")
        if operation in _FREE or operation.endswith("-done"):
            continue
        moved = [kind]
        if not operation.endswith("-start"):  # whose result names source and target already
            operands = rest.split(", metadata=")[0].split(", calls=")[0]
            moved += [types.get(operand, "") for operand in _NAME.findall(operands)]
        for one in map(_bytes, moved):
            hbm, vmem = hbm + one.hbm, vmem + one.vmem
    return Traffic(hbm, vmem)


def _bytes(kind: str) -> Traffic:
    hbm = vmem = 0
    for name, sides, layout in _ARRAY.findall(kind):
        size = _SIZES.get(name, 0)
        for side in filter(None, sides.split(",")):
            size *= int(side)
        space = _SPACE.search(layout)
        if space is None:
            hbm += size
        elif space[1] == "1":
            vmem += size
    return Traffic(hbm, vmem)
