"""Draws curves over an axis of numbers: spectra, the course of a training."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from vaejax.report.drawing import LETTER, WIDTH, line, marker, series_of, svg, text
from vaejax.report.markup import Markup, element
from vaejax.report.numbers import Number, finite, power_of_ten
from vaejax.report.scales import Scale, extent, log_ticks, tick_text, ticks

TOP, PLOT_HEIGHT = 22, 200
_ROW = 14  # of a label's text
_GAP = 4  # between two labels


def line_chart(curve: Mapping[str, Any], title: str, *, log: bool = False) -> Markup:
    """Draws lines, each with its name at its end.

    Args:
      curve: `x` (numbers), `x_label`, `y_label` and `lines` (by name as many numbers, None where
        one is missing). The ticks of an axis `log10 …` are powers of ten.
      title: name of the chart.
      log: whether the axis of `x` is logarithmic; numbers that are not positive are left out.
    """
    series, xs = series_of(curve), [finite(x) for x in curve["x"]]
    if log:
        xs = [x if x and x > 0 else None for x in xs]
    y_ticks = ticks(*extent(y for one in series for y in one.values if y is not None))
    y_texts, y_label = _y_texts(y_ticks, curve["y_label"])
    names = [textwrap.wrap(one.name, 17, max_lines=2, placeholder="…") for one in series]
    heights = [_ROW * len(rows) + _GAP for rows in names]
    left = LETTER * max(map(len, y_texts)) + 8
    right = WIDTH - 20 - LETTER * max((len(row) for rows in names for row in rows), default=0)
    bottom = TOP + max(PLOT_HEIGHT, sum(heights))
    low, high = extent((x for x in xs if x is not None), log=log)
    x_scale = Scale(low, high, left, right, log)
    y_scale = Scale(y_ticks[0], y_ticks[-1], bottom, TOP)
    parts = [text(0, 10, y_label, style="label")]
    for tick, tick_name in zip(y_ticks, y_texts):
        parts.append(line(left, y_scale(tick), right, y_scale(tick), "grid"))
        parts.append(text(left - 6, y_scale(tick) + 4, tick_name, anchor="end"))
    for tick in log_ticks(low, high) if log else ticks(low, high):
        if low <= tick <= high:
            x = x_scale(tick)
            parts.append(line(x, bottom, x, bottom + 4, "axis"))
            parts.append(text(x, bottom + 16, tick_text(tick), anchor="middle"))
    parts.append(line(left, bottom, right, bottom, "axis"))
    parts.append(
        text((left + right) / 2, bottom + 33, curve["x_label"], style="label", anchor="middle")
    )
    paths = [_path(xs, one.values, x_scale, y_scale) for one in series]
    middles = apart([end[1] for _, end in paths], heights, bottom + _ROW / 2)
    for one, (path, (x, y)), middle, rows in zip(series, paths, middles, names):
        if path:
            name = element("title", one.name)
            parts.append(element("path", name, d=path, class_=f"line {one.style}"))
            parts.append(line(x, y, right + 11, middle, f"leader {one.style}"))
            parts.append(marker(one, x, y))
        first = middle + 4 - _ROW * (len(rows) - 1) / 2
        parts += [
            text(right + 14, first + _ROW * i, row, style="name") for i, row in enumerate(rows)
        ]
    return svg(title, series, curve["x_label"], bottom + 39, parts)


def _y_texts(y_ticks: Sequence[float], label: str) -> tuple[list[str], str]:
    """Returns the texts of the ticks and of the axis; powers of ten in place of logarithms."""
    if label.startswith("log10 ") and all(tick.is_integer() for tick in y_ticks):
        return [power_of_ten(round(tick)) for tick in y_ticks], label.removeprefix("log10 ")
    return [tick_text(tick) for tick in y_ticks], label


def _path(
    xs: Sequence[float | None], ys: Sequence[float | None], x_scale: Scale, y_scale: Scale
) -> tuple[str, tuple[Number, Number]]:
    """Returns a path with gaps where numbers are missing, and the coordinates of its end.

    If most numbers are missing, the line has been measured at fewer x, and has no gaps.
    """
    sparse = 2 * sum(y is not None for y in ys) < len(ys)
    path, end, pen = "", (x_scale.end, (y_scale.start + y_scale.end) / 2), "M"
    for x, y in zip(xs, ys):
        if x is None or y is None:
            pen = pen if sparse else "M"
            continue
        end = x_scale(x), y_scale(y)
        # A line of length 0 draws a dot, which is all that is seen where both neighbours miss.
        path += f"{pen}{end[0]:.1f} {end[1]:.1f}" + ("h0" if pen == "M" else "")
        pen = "L"
    return path, end


def apart(wanted: Sequence[Number], heights: Sequence[Number], bottom: Number) -> list[Number]:
    """Returns the middles of labels so that none overlap, and none reach below `bottom`.

    Args:
      wanted: the middles where they would best be.
      heights: heights of the labels.
      bottom: lowest end of a label.
    """
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    middles, edge = list(wanted), -math.inf
    for i in order:
        middles[i] = max(middles[i], edge + heights[i] / 2)
        edge = middles[i] + heights[i] / 2
    edge = bottom
    for i in reversed(order):
        middles[i] = min(middles[i], edge - heights[i] / 2)
        edge = middles[i] - heights[i] / 2
    return middles
