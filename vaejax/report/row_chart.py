"""Draws values of named things, one row each: bars, dots with whiskers, and a table's strips."""

import math
from collections.abc import Mapping
from typing import Any

from vaejax.report.drawing import LETTER, WIDTH, Series, line, marker, series_of, svg, text
from vaejax.report.markup import Markup, element
from vaejax.report.numbers import Number, Standing, measured
from vaejax.report.scales import Scale, extent, tick_text, ticks

TOP = 18
_LONGEST = 22  # letters of a row's name
STRIP_WIDTH, _STRIP_HEIGHT = 120, 16
_STRIP_BOX = f"0 0 {STRIP_WIDTH} {_STRIP_HEIGHT}"


def row_chart(curve: Mapping[str, Any], title: str) -> Markup:
    """Draws dots with whiskers if the curve has `spreads`, otherwise bars that begin at 0.

    Args:
      curve: `x` (names of the rows), `x_label`, `y_label`, `lines` (by name as many numbers, None
        where one is missing), and optionally `spreads` (standard deviations of the same form).
      title: name of the chart.
    """
    series, names = series_of(curve), [str(name) for name in curve["x"]]
    dots, alone = bool(curve.get("spreads")), len(series) == 1
    step = 7 if dots else 10
    height = step * max(1, len(series)) + 10
    reached = [] if dots else [0.0]
    for one in series:
        for value, spread in zip(one.values, one.spreads):
            if value is not None:
                reached += [value - (spread or 0), value + (spread or 0)]
    x_ticks = ticks(*extent(reached))
    left = LETTER * min(_LONGEST, max(map(len, names), default=0)) + 10
    # A single series has its numbers beside its marks.
    right = WIDTH - ((104 if dots else 52) if alone else 12)
    bottom = TOP + height * len(names)
    scale = Scale(x_ticks[0], x_ticks[-1], left, right)
    parts = [text(0, 10, curve["x_label"], style="label")]
    for tick in x_ticks:
        parts.append(line(scale(tick), TOP, scale(tick), bottom, "grid" if tick else "axis"))
        parts.append(text(scale(tick), bottom + 15, tick_text(tick), anchor="middle"))
    parts.append(
        text((left + right) / 2, bottom + 32, curve["y_label"], style="label", anchor="middle")
    )
    for row, name in enumerate(names):
        middle = TOP + height * (row + 0.5)
        parts.append(_row_name(left - 7, middle + 4, name))
        for i, one in enumerate(series):
            y = middle + step * (i - (len(series) - 1) / 2)
            value, spread = one.values[row], one.spreads[row]
            if value is not None:
                parts += _dot(one, scale, value, spread, y) if dots else _bar(one, scale, value, y)
            if alone:
                end = scale(max(0.0, value or 0.0)) if not dots else right
                parts.append(text(end + 5, y + 4, _number(value, spread), style="name"))
    return svg(title, series, curve["x_label"], bottom + 38, parts)


def _number(value: float | None, spread: float | None) -> str:
    if value is None or spread is not None:
        return measured(value, spread)
    return tick_text(float(f"{value:.3g}"))


def _row_name(x: Number, y: Number, name: str) -> Markup:
    if len(name) <= _LONGEST:
        return text(x, y, name, style="name", anchor="end")
    short = f"{name[: _LONGEST - 1]}…"
    return text(x, y, element("title", name), short, style="name", anchor="end")


def _dot(
    one: Series, scale: Scale, value: Number, spread: Number | None, y: Number
) -> list[Markup]:
    whisker = []
    if spread:
        ends = scale(value - spread), scale(value + spread)
        whisker = [line(ends[0], y, ends[1], y, f"whisker {one.style}")]
    return [*whisker, marker(one, scale(value), y)]


def _bar(one: Series, scale: Scale, value: Number, y: Number) -> list[Markup]:
    x, end = sorted((scale(0.0), scale(value)))
    return [
        element(
            "rect",
            x=f"{x:.1f}",
            y=f"{y - 4:.1f}",
            width=f"{end - x:.1f}",
            height=8,
            class_=f"bar {one.style}",
        )
    ]


def strip_limit(standings: list[Standing]) -> Number:
    """Returns the ratio to the floor at which the strips of a table end: 2, 5, 10 or 20."""
    largest = max((abs(one.log_ratio) for one in standings if one.log_ratio is not None), default=0)
    limits = (2.0, 5.0, 10.0, 20.0)
    return next((limit for limit in limits if math.log(limit) >= largest), limits[-1])


def strip(standing: Standing, limit: Number) -> Markup | None:
    """Draws the ratio to the floor as a dot left or right of a line, which is the floor itself.

    The whisker has a length of two standard deviations on either side. A hollow dot is within them;
    a triangle points at a ratio that lies beyond the limit.
    """
    if standing.log_ratio is None:
        return None
    end, middle = math.log(limit), _STRIP_HEIGHT / 2
    scale = Scale(-end, end, 6, STRIP_WIDTH - 6)
    low, high = (
        scale(min(end, max(-end, standing.log_ratio + 2 * side * standing.log_spread)))
        for side in (-1, 1)
    )
    x = scale(min(end, max(-end, standing.log_ratio)))
    dot = element("circle", cx=f"{x:.1f}", cy=middle, r=3.5, class_=standing.verdict or "unknown")
    if abs(standing.log_ratio) > end:
        way = math.copysign(5, standing.log_ratio)
        path = f"M{x + way:.1f} {middle}l{-2 * way:g} -4.5v9z"
        dot = element("path", d=path, class_=standing.verdict or "unknown")
    return element(
        "svg",
        line(0, middle, STRIP_WIDTH, middle, "grid"),
        line(STRIP_WIDTH / 2, 0, STRIP_WIDTH / 2, _STRIP_HEIGHT, "axis"),
        line(low, middle, high, middle, f"whisker {standing.verdict or 'unknown'}"),
        dot,
        viewBox=_STRIP_BOX,
        aria_hidden="true",  # the cell before it says the same in words
        class_="strip",
    )


def strip_axis(limit: Number) -> Markup:
    """Draws the axis of the strips for the head of their column."""
    return element(
        "svg",
        element("title", "Ratio to the floor, on a logarithmic scale"),
        text(0, 12, f"1/{limit:g}"),
        text(STRIP_WIDTH / 2, 12, "floor", anchor="middle"),
        text(STRIP_WIDTH, 12, f"{limit:g}×", anchor="end"),
        viewBox=_STRIP_BOX,
        role="img",
        class_="strip",
    )
