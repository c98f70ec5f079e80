"""Draws the subpackages and what each imports, as an SVG: `python docs/architecture.py`.

The drawing is made from the import statements in the code, so it cannot fall behind it.
"""

import ast
import pathlib
from collections.abc import Iterator

PACKAGE = pathlib.Path(__file__).parents[1] / "vaejax"
# Pixels of the drawing: a box, the gaps beside boxes and between layers, and the margin.
WIDTH, HEIGHT, GAP, LAYER, MARGIN = 104, 34, 18, 84, 16

_STYLE = (
    "text{font:13px system-ui,sans-serif;text-anchor:middle;fill:#1d2733}"
    "rect{fill:#eef3f8;stroke:#4a6785;rx:5}"
    "path{fill:none;stroke:#4a6785;stroke-opacity:.35}"
)


def subpackages() -> dict[str, set[str]]:
    """Returns what each subpackage (a folder, or a module beside them) imports of the others."""
    files: dict[str, list[pathlib.Path]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).with_suffix("").parts[0]
        if name != "__init__":
            files.setdefault(name, []).append(path)
    found = {name: {other for path in paths for other in _imported(path)}
             for name, paths in files.items()}  # fmt: skip
    return {name: (imported & found.keys()) - {name} for name, imported in found.items()}


def layers(imports: dict[str, set[str]]) -> list[list[str]]:
    """Returns layers from the top down: each subpackage is just below the lowest that imports it.

    Raises:
      ValueError: subpackages import each other in a circle.
    """
    importers = {name: {above for above in imports if name in imports[above]} for name in imports}
    depth: dict[str, int] = {}
    while len(depth) < len(imports):
        ready = {name: 1 + max((depth[above] for above in above_it), default=-1)
                 for name, above_it in importers.items()
                 if name not in depth and above_it <= depth.keys()}  # fmt: skip
        if not ready:
            raise ValueError(f"a circle of imports among {sorted(imports.keys() - depth.keys())}")
        depth |= ready
    layered: list[list[str]] = []
    for number in range(1 + max(depth.values())):
        place = {name: n - len(layer) / 2 for layer in layered for n, name in enumerate(layer)}

        def middle(name: str, place: dict[str, float] = place) -> float:
            above = [place[other] for other in importers[name]]
            return sum(above) / len(above) if above else 0.0

        layered.append(sorted((name for name in depth if depth[name] == number), key=middle))
    return layered


def drawing() -> str:
    """Returns an SVG with the commands at the top and a line for each direct import.

    A line that the others imply (A imports B, which imports C) is left out.
    """
    imports = subpackages()
    layered = layers(imports)
    width = max(len(layer) for layer in layered) * (WIDTH + GAP) + 2 * MARGIN
    height = len(layered) * LAYER - (LAYER - HEIGHT) + 2 * MARGIN
    centre = {}
    for number, layer in enumerate(layered):
        for place, name in enumerate(layer):
            x = width / 2 + (place - (len(layer) - 1) / 2) * (WIDTH + GAP)
            centre[name] = (x, MARGIN + HEIGHT / 2 + number * LAYER)
    parts = [_line(centre[name], centre[below]) for name, below in _needed(imports)]
    parts += [_box(name, *place) for name, place in centre.items()]
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" '
        f'role="img" aria-label="The subpackages of vaejax and what each imports">\n'
        f"<style>{_STYLE}</style>\n{body}\n</svg>\n"
    )


def table() -> str:
    """Returns a Markdown table of the subpackages, from the top down, and their direct imports."""
    imports = subpackages()
    lines = ["| subpackage | imports |", "|---|---|"]
    for name in (name for layer in layers(imports) for name in layer):
        lines.append(f"| `{name}` | {', '.join(sorted(imports[name])) or 'nothing of vaejax'} |")
    return "\n".join(lines) + "\n"


def _imported(path: pathlib.Path) -> Iterator[str]:
    """Yields the subpackages of vaejax that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "vaejax":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("vaejax."):
            yield node.module.split(".")[1]
        elif isinstance(node, ast.Import):
            yield from (name.name.split(".")[1] for name in node.names
                        if name.name.startswith("vaejax."))  # fmt: skip


def _needed(imports: dict[str, set[str]]) -> list[tuple[str, str]]:
    """Returns the imports that no chain of other imports implies."""

    def reached(name: str) -> set[str]:
        return imports[name].union(*(reached(below) for below in imports[name]))

    return [
        (name, below)
        for name, imported in imports.items()
        for below in sorted(imported)
        if not any(below in reached(other) for other in imported - {below})
    ]


def _line(above: tuple[float, float], below: tuple[float, float]) -> str:
    (x0, y0), (x1, y1) = above, below
    y0, y1 = y0 + HEIGHT / 2, y1 - HEIGHT / 2
    return f'<path d="M{x0:g} {y0:g}C{x0:g} {y0 + 30:g} {x1:g} {y1 - 30:g} {x1:g} {y1:g}"/>'


def _box(name: str, x: float, y: float) -> str:
    return (
        f'<rect x="{x - WIDTH / 2:g}" y="{y - HEIGHT / 2:g}" width="{WIDTH}" height="{HEIGHT}"/>'
        f'<text x="{x:g}" y="{y + 5:g}">{name}</text>'
    )


if __name__ == "__main__":
    print(drawing())
