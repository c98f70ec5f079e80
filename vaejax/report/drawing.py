"""The parts that every chart is drawn with: the curve's series, text, lines and markers as SVG.

Charts are 420 units wide. The series differ in marker and dash as well as in colour, so that the
charts can be read by those who see colours differently, and on paper.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from vaejax.report.markup import Markup, element
from vaejax.report.numbers import Number, finite, measured

WIDTH = 420
# About the width of a letter in the charts' font.
LETTER = 7
# Around (0, 0), by series: circle, square, triangle, diamond, bar.
_SHAPES = (
    "M-3.5 0a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0 -7 0z",
    "M-3.2 -3.2h6.4v6.4h-6.4z",
    "M0 -4.2L4.2 3.2H-4.2z",
    "M0 -4.6L4.6 0L0 4.6L-4.6 0z",
    "M-1.6 -4.5h3.2v9h-3.2z",
)


class Series(NamedTuple):
    """One line of a curve.

    Attributes:
      name: what it shows.
      style: class in the style sheet: `real` for real faces, else `s1` to `s5`.
      shape: path of its marker.
      values: a number for each x; None where it is missing.
      spreads: standard deviations of the values; None where they are missing.
    """

    name: str
    style: str
    shape: str
    values: list[float | None]
    spreads: list[float | None]


def series_of(curve: Mapping[str, Any]) -> list[Series]:
    """Returns the lines of a curve, cut or filled up with None to the length of its `x`."""
    count, styled = len(curve["x"]), 0
    found: list[Series] = []
    for name, values in curve["lines"].items():
        # Real faces are what the others are compared with: they get the colour of the text.
        real = name.lower().startswith("real")
        styled += not real
        found.append(
            Series(
                name,
                "real" if real else f"s{(styled - 1) % 5 + 1}",
                _SHAPES[len(found) % len(_SHAPES)],
                _numbers(values, count),
                _numbers((curve.get("spreads") or {}).get(name, ()), count),
            )
        )
    return found


def _numbers(values: Iterable[Any], count: int) -> list[float | None]:
    found = [finite(value) for value in values][:count]
    return found + [None] * (count - len(found))


def legend(series: Iterable[Series]) -> Markup:
    """Returns a list of the names of series, each behind its marker."""
    items = (
        element(
            "li", element("svg", marker(one), viewBox="-7 -7 14 14", aria_hidden="true"), one.name
        )
        for one in series
    )
    return element("ul", items, class_="legend")


def svg(title: str, series: Iterable[Series], x: str, height: Number, parts: list[Any]) -> Markup:
    """Returns a chart whose content is told to those who cannot see it.

    Args:
      title: its name.
      series: what it shows.
      x: name of the axis that the values of a series run along.
      height: its height in units.
      parts: its drawing.
    """
    ranges = "; ".join(f"{one.name}: {_range(one.values)}" for one in series)
    return element(
        "svg",
        element("title", title),
        element("desc", f"Along {x}. {ranges}."),
        parts,
        viewBox=f"0 0 {WIDTH} {height:g}",
        role="img",
    )


def _range(values: list[float | None]) -> str:
    found = [value for value in values if value is not None]
    if not found:
        return "no values"
    return (
        f"{measured(found[0])} at the start, {measured(found[-1])} at the end, "
        f"between {measured(min(found))} and {measured(max(found))}"
    )


def text(x: Number, y: Number, *content: Any, style: str = "tick", anchor: str = "start") -> Markup:
    """Returns text whose base line is at `y`; `anchor` is `start`, `middle` or `end`."""
    return element("text", *content, x=f"{x:.1f}", y=f"{y:.1f}", class_=style, text_anchor=anchor)


def line(x1: Number, y1: Number, x2: Number, y2: Number, style: str) -> Markup:
    """Returns a straight line."""
    return element("path", d=f"M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}", class_=style)


def marker(one: Series, x: Number = 0, y: Number = 0) -> Markup:
    """Returns the marker of a series."""
    return element(
        "path", d=one.shape, transform=f"translate({x:.1f} {y:.1f})", class_=f"mark {one.style}"
    )
