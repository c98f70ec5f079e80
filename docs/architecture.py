"""Draws the rooms of the package and what each imports, as an SVG: `python docs/architecture.py`.

The drawing is made from the import statements in the code, so it cannot fall behind it.
"""

import ast
import pathlib
from collections.abc import Iterator

PACKAGE = pathlib.Path(__file__).parents[1] / "vaejax"
# Pixels of the drawing: a room, the gaps beside and between floors, and the margin.
WIDTH, HEIGHT, GAP, STOREY, MARGIN = 104, 34, 18, 84, 16

_STYLE = (
    "text{font:13px system-ui,sans-serif;text-anchor:middle;fill:#1d2733}"
    "rect{fill:#eef3f8;stroke:#4a6785;rx:5}"
    "path{fill:none;stroke:#4a6785;stroke-opacity:.35}"
)


def rooms() -> dict[str, set[str]]:
    """Each room (a folder of the package or a module beside them) and the rooms that it imports."""
    files: dict[str, list[pathlib.Path]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).with_suffix("").parts[0]
        if name != "__init__":
            files.setdefault(name, []).append(path)
    found = {name: {room for path in paths for room in _imported(path)}
             for name, paths in files.items()}  # fmt: skip
    return {name: (imported & found.keys()) - {name} for name, imported in found.items()}


def floors(imports: dict[str, set[str]]) -> list[list[str]]:
    """The rooms from the top down: each stands just below the lowest room that imports it.

    Raises:
      ValueError: rooms import each other in a circle.
    """
    importers = {room: {above for above in imports if room in imports[above]} for room in imports}
    depth: dict[str, int] = {}
    while len(depth) < len(imports):
        ready = {room: 1 + max((depth[above] for above in above_it), default=-1)
                 for room, above_it in importers.items()
                 if room not in depth and above_it <= depth.keys()}  # fmt: skip
        if not ready:
            raise ValueError(f"a circle of imports among {sorted(imports.keys() - depth.keys())}")
        depth |= ready
    storeys: list[list[str]] = []
    for floor in range(1 + max(depth.values())):
        place = {room: n - len(storey) / 2 for storey in storeys for n, room in enumerate(storey)}

        def middle(room: str, place: dict[str, float] = place) -> float:
            above = [place[other] for other in importers[room]]
            return sum(above) / len(above) if above else 0.0

        storeys.append(sorted((room for room in depth if depth[room] == floor), key=middle))
    return storeys


def drawing() -> str:
    """The SVG: doors at the top, the ground at the bottom, and a line for each direct import.

    A line that the others imply (a room imports another that imports the third) is left out.
    """
    imports = rooms()
    storeys = floors(imports)
    width = max(len(storey) for storey in storeys) * (WIDTH + GAP) + 2 * MARGIN
    height = len(storeys) * STOREY - (STOREY - HEIGHT) + 2 * MARGIN
    centre = {}
    for floor, storey in enumerate(storeys):
        for place, room in enumerate(storey):
            x = width / 2 + (place - (len(storey) - 1) / 2) * (WIDTH + GAP)
            centre[room] = (x, MARGIN + HEIGHT / 2 + floor * STOREY)
    parts = [_line(centre[room], centre[below]) for room, below in _needed(imports)]
    parts += [_box(room, *place) for room, place in centre.items()]
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" '
        f'role="img" aria-label="The rooms of vaejax and what each imports">\n'
        f"<style>{_STYLE}</style>\n{body}\n</svg>\n"
    )


def table() -> str:
    """A Markdown table of the rooms, from the top down, and all that each imports directly."""
    imports = rooms()
    lines = ["| room | imports |", "|---|---|"]
    for room in (room for storey in floors(imports) for room in storey):
        lines.append(f"| `{room}` | {', '.join(sorted(imports[room])) or 'nothing of vaejax'} |")
    return "\n".join(lines) + "\n"


def _imported(path: pathlib.Path) -> Iterator[str]:
    """The rooms of vaejax that a file names in its import statements."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "vaejax":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("vaejax."):
            yield node.module.split(".")[1]
        elif isinstance(node, ast.Import):
            yield from (name.name.split(".")[1] for name in node.names
                        if name.name.startswith("vaejax."))  # fmt: skip


def _needed(imports: dict[str, set[str]]) -> list[tuple[str, str]]:
    """The imports that no chain of other imports implies."""

    def reached(room: str) -> set[str]:
        return imports[room].union(*(reached(below) for below in imports[room]))

    return [
        (room, below)
        for room, imported in imports.items()
        for below in sorted(imported)
        if not any(below in reached(other) for other in imported - {below})
    ]


def _line(above: tuple[float, float], below: tuple[float, float]) -> str:
    (x0, y0), (x1, y1) = above, below
    y0, y1 = y0 + HEIGHT / 2, y1 - HEIGHT / 2
    return f'<path d="M{x0:g} {y0:g}C{x0:g} {y0 + 30:g} {x1:g} {y1 - 30:g} {x1:g} {y1:g}"/>'


def _box(room: str, x: float, y: float) -> str:
    return (
        f'<rect x="{x - WIDTH / 2:g}" y="{y - HEIGHT / 2:g}" width="{WIDTH}" height="{HEIGHT}"/>'
        f'<text x="{x:g}" y="{y + 5:g}">{room}</text>'
    )


if __name__ == "__main__":
    print(drawing())
