"""Mutation testing: makes small faults in the package, and runs the tests nearest to each."""

import ast
import copy
import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).parents[1]
PACKAGE = REPOSITORY / "vaejax"
# What draws procedural faces: faults there change pictures, which no test compares exactly.
LEFT_OUT = ("data.synthetic",)

_COMPARISONS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
_OPERATORS = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult, ast.Mod: ast.Add, ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip


class Fault(NamedTuple):
    """One expression of the package, and a faulty one in its place.

    Attributes:
      module: dotted name of the module, without the package's name.
      line: line number of the expression.
      place: index of its node in `ast.walk` of the module.
      before, after: source of the expression without and with the fault.
    """

    module: str
    line: int
    place: int
    before: str
    after: str

    @property
    def subpackage(self) -> str:
        """The subpackage that it is in; "commands" for the modules beside the subpackages."""
        folder, dot, _ = self.module.partition(".")
        return folder if dot else "commands"

    def source(self) -> str:
        """Returns the source of the whole module with the fault."""
        tree = ast.parse(path_of(PACKAGE, self.module).read_text())
        node = list(ast.walk(tree))[self.place]
        changed = _changed(node)
        assert changed is not None, "the module has changed meanwhile"
        node.__dict__.update(changed.__dict__)
        return ast.unparse(tree)


def path_of(package: Path, module: str) -> Path:
    """Returns the file of a module in the package directory `package`."""
    return package.joinpath(*module.split(".")).with_suffix(".py")


def faults(path: Path) -> Iterator[Fault]:
    """Yields all faults that can be made in the module in the file `path` of the package."""
    tree = ast.parse(path.read_text())
    module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    left_out = {id(inner) for outer in ast.walk(tree) for inner in _unevaluated(outer)}
    for place, node in enumerate(ast.walk(tree)):
        if id(node) not in left_out and (changed := _changed(node)):
            line = getattr(node, "lineno", 0)
            yield Fault(module, line, place, ast.unparse(node), ast.unparse(changed))


def _changed(node: ast.AST) -> ast.AST | None:
    """Returns the node with a fault; None if none is made there."""
    twin = copy.deepcopy(node)
    if isinstance(twin, ast.Compare) and type(twin.ops[0]) in _COMPARISONS:
        twin.ops[0] = _COMPARISONS[type(twin.ops[0])]()
    elif isinstance(twin, ast.BinOp | ast.BoolOp) and type(twin.op) in _OPERATORS:
        # Strings cannot be subtracted: the fault would fail wherever it is run.
        if any(isinstance(part, ast.JoinedStr) or _is_text(part) for part in ast.walk(twin)):
            return None
        twin.op = _OPERATORS[type(twin.op)]()
    elif isinstance(twin, ast.Constant) and type(twin.value) in (int, float, bool):
        value = twin.value
        twin.value = not value if isinstance(value, bool) else 2 * value or 1
    else:
        return None
    return twin


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _unevaluated(node: ast.AST) -> Iterator[ast.AST]:
    """Yields nodes no test runs: annotations, protocols, `__main__` and TYPE_CHECKING blocks."""
    for name in ("annotation", "returns"):
        if inner := getattr(node, name, None):
            yield from ast.walk(inner)
    protocol = isinstance(node, ast.ClassDef) and "Protocol" in map(ast.unparse, node.bases)
    test = ast.unparse(node.test) if isinstance(node, ast.If) else ""
    if protocol or "__main__" in test or "TYPE_CHECKING" in test:
        yield from ast.walk(node)


def drawn(count: int, seed: int) -> list[Fault]:
    """Draws `count` faults at random, in turn from each subpackage."""
    rng = random.Random(seed)
    by_subpackage: dict[str, list[Fault]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        if not module.startswith(LEFT_OUT):
            for fault in faults(path):
                by_subpackage.setdefault(fault.subpackage, []).append(fault)
    for some in by_subpackage.values():
        rng.shuffle(some)
    found: list[Fault] = []
    while len(found) < count and any(by_subpackage.values()):
        found += [some.pop() for some in by_subpackage.values() if some]
    return found[:count]


def imported(path: Path, package: str) -> set[str]:
    """Returns the modules of `package` that a file imports, dotted, without its name."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == package:
            inner = (node.module or "").removeprefix(package).removeprefix(".")
            found |= {f"{inner}.{alias.name}".strip(".") for alias in node.names} | {inner}
    return found - {""}


def nearest_tests(module: str) -> list[str]:
    """Returns the test files, nearest first.

    First come those named like a part of the module's dotted name, then those from which the
    fewest imports lead to the module.
    """
    graph = {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"):
        imported(path, "vaejax")
        for path in PACKAGE.rglob("*.py")
    }  # fmt: skip
    wanted = module.removesuffix(".__init__")
    distances = []
    for path in sorted((REPOSITORY / "tests").glob("test_*.py")):
        reached, frontier, steps = set(), imported(path, "vaejax"), 0
        while frontier and wanted not in frontier:
            reached |= frontier
            frontier = set().union(*(graph.get(name, set()) for name in frontier)) - reached
            steps += 1
        # No test imports the commands: one that names a command starts it.
        named = f'"{module}"' in path.read_text()
        steps = 0 if named else steps if frontier else 99
        alike = any(part in path.stem for part in re.split("[._]", wanted))
        distances.append((not alike, steps, path.stat().st_size, path.name))
    return [f"tests/{name}" for *_, name in sorted(distances)]


def is_caught(
    module: str, source: str, tree: Path, *, files: int, timeout: float
) -> tuple[bool, str]:
    """Runs the tests nearest to a module, with other source in its place.

    Args:
      module: dotted name of the module, without the package's name.
      source: the source to test.
      tree: a copy of the repository; its files are restored afterwards.
      files: number of test files to run, nearest first.
      timeout: seconds after which the fault counts as caught.

    Returns:
      Whether a test failed, and which.
    """
    path = path_of(tree / "vaejax", module)
    before = path.read_text()
    path.write_text(source)
    line = [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", "--numprocesses=0",
            "-m", "not soak", *nearest_tests(module)[: files]]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    # Else each of the processes that the tests start compiles all sources anew.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    process = subprocess.Popen(
        line, cwd=tree, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, start_new_session=True,
    )  # fmt: skip
    try:
        output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return True, "timed out"
    finally:
        path.write_text(before)
    failed = [
        words for words in output.splitlines() if words.startswith(("FAILED", "ERROR", "____"))
    ]
    if not process.returncode:
        return False, ""
    return True, failed[0].strip("_ ") if failed else f"exit status {process.returncode}"
