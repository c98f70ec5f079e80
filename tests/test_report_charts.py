"""Charts and numbers of the report: what is drawn is where the values say it should be."""

import itertools
import math
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reports import some_figure, some_rows

from vaejax.report.line_chart import PLOT_HEIGHT, TOP, apart, line_chart
from vaejax.report.numbers import finite, measured, standing
from vaejax.report.row_chart import row_chart, strip, strip_limit
from vaejax.report.scales import Scale, extent, ticks


def _curve(x, lines):
    return {"x": x, "x_label": "x", "y_label": "y", "lines": lines}


def _points(path):
    return [tuple(map(float, point.split())) for point in re.findall(r"[ML]([\d. -]+)", path)]


def _drawn(svg):
    return {
        node.find("title").text: node.get("d")
        for node in ET.fromstring(svg).iter("path")
        if node.get("class", "").startswith("line ")
    }


def test_a_straight_line_is_drawn_where_it_should_be():
    (path,) = _drawn(line_chart(_curve([0, 5, 10], {"up": [0, 1, 2]}), "chart")).values()
    (x0, y0), (x1, y1), (x2, y2) = _points(path)
    # 0 and 2 are ticks, so the line goes from the lower to the upper end of the plot.
    assert (y0, y1, y2) == (TOP + PLOT_HEIGHT, TOP + PLOT_HEIGHT / 2, TOP)
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.11)
    assert x2 - x0 > 200


def test_a_logarithmic_axis_makes_a_power_a_straight_line():
    x = [0, 1, 2, 4, 8, 16]
    svg = line_chart(_curve(x, {"power": [math.log2(max(one, 1)) for one in x]}), "c", log=True)
    (path,) = _drawn(svg).values()
    points = _points(path)
    assert len(points) == 5  # 0 has no logarithm
    steps = np.diff(np.array(points), axis=0)
    np.testing.assert_allclose(steps, np.broadcast_to(steps.mean(0), steps.shape), atol=0.11)


def test_axes_of_logarithms_show_powers_of_ten():
    curve = _curve([1, 10, 100], {"a": [0, -4, -8]}) | {"y_label": "log10 power"}
    words = {node.text for node in ET.fromstring(line_chart(curve, "c")).iter("text")}
    assert {"power", "10⁰", "10⁻⁸"} <= words
    # Half powers would be no round numbers.
    curve["lines"] = {"a": [0, -1, -2]}
    words = {node.text for node in ET.fromstring(line_chart(curve, "c")).iter("text")}
    assert {"log10 power", "0", "−0.5", "−2"} <= words


def test_missing_values_are_gaps_unless_most_are_missing():
    lines = {
        "gap": [1, 2, None, 3, 4, 5],
        "dense": [1, 2, 3, 4, 5, 6],
        "sparse": [1, None, None, None, None, 2],
        "none": [None] * 6,
    }
    drawn = _drawn(line_chart(_curve(list(range(6)), lines), "chart"))
    assert {name: path.count("M") for name, path in drawn.items()} == {
        "gap": 2,
        "dense": 1,
        "sparse": 1,
    }
    assert [len(_points(drawn[name])) for name in ("gap", "dense", "sparse")] == [5, 6, 2]


def test_bars_are_as_long_as_their_values():
    root = ET.fromstring(row_chart(some_rows({"KL": [1.0, 4.0, None]}), "chart"))
    first, second = root.iter("rect")
    assert first.get("x") == second.get("x")
    assert float(second.get("width")) == pytest.approx(4 * float(first.get("width")), abs=0.3)
    words = [node.text for node in root.iter("text")]
    assert {"a", "b", "c", "1", "4", "—", "bits", "kind"} <= set(words)


def test_whiskers_are_one_spread_on_either_side():
    curve = some_rows({"samples": [1.0, 2.0, 3.0]}, spreads={"samples": [0.25, 0.5, None]})
    root = ET.fromstring(row_chart(curve, "chart"))
    widths = []
    for node in root.iter("path"):
        if node.get("class").startswith("whisker"):
            (low, _), (high, _) = _points(node.get("d"))
            widths.append(high - low)
    dots = [
        float(re.search(r"\(([\d.]+)", node.get("transform")).group(1))
        for node in root.iter("path")
        if node.get("class").startswith("mark")
    ]
    assert len(widths) == 2 and len(dots) == 3
    unit = dots[1] - dots[0]
    np.testing.assert_allclose(widths, [0.5 * unit, unit], atol=0.3)


@given(st.lists(st.tuples(st.integers(0, 200), st.sampled_from([18, 32])), max_size=8))
def test_labels_do_not_overlap(labels):
    wanted, heights = [one[0] for one in labels], [one[1] for one in labels]
    middles = apart(wanted, heights, 256)
    spans = sorted((m - h / 2, m + h / 2) for m, h in zip(middles, heights))
    assert all(low[1] <= high[0] for low, high in itertools.pairwise(spans))
    assert all(span[1] <= 256 for span in spans)


@given(st.lists(st.floats(-1e12, 1e12).map(finite), min_size=1, max_size=5))
def test_ticks_enclose_the_numbers(numbers):
    low, high = extent(numbers)
    found = ticks(low, high)
    assert 2 <= len(found) <= 8
    assert found[0] <= min(numbers) + 1e-6 * abs(high - low)
    assert found[-1] >= max(numbers) - 1e-6 * abs(high - low)
    scale = Scale(found[0], found[-1], 100.0, 0.0)
    assert scale(found[0]) == 100 and scale(found[-1]) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("value", "spread", "expected"),
    [
        (24.2134, 0.0312, "24.213 ± 0.031"),
        (-14230.4, None, "−14,230"),
        (212, None, "212"),
        (0.0, None, "0"),
        (0.5, 0.0, "0.5000 ± 0.0000"),
        (2.5e-5, None, "2.500 × 10⁻⁵"),
        (3.2e7, 4e5, "(3.200 ± 0.040) × 10⁷"),
        (1.0, math.nan, "1"),
        (-0.0001, 0.5, "0.00 ± 0.50"),
        (-1e-200, None, "0"),
        ("no number", None, "—"),
        (10**400, None, "—"),
    ],
)
def test_numbers_have_the_digits_that_their_spread_justifies(value, spread, expected):
    assert measured(value, spread) == expected


@pytest.mark.parametrize(
    ("changes", "text", "verdict"),
    [
        ({"value": 0.26}, "1.04×", "same"),
        ({"value": 0.5}, "2.00×", "worse"),
        ({"value": 0.5, "better": "higher"}, "2.00×", "better"),
        ({"value": 0.1}, "0.40×", "better"),
        ({"value": 0.1, "better": "floor"}, "0.40×", "below"),
        ({"value": 0.5, "better": "floor"}, "2.00×", "above"),
        ({"value": 0.5, "spread": None}, "2.00×", ""),
        ({"value": 24.0, "floor": 38.0, "unit": "dB", "better": "higher"}, "−14 dB", "worse"),
        ({"value": 0.5, "floor": -0.1}, "+0.6000", "worse"),
        ({"value": 500.0}, "2,000×", "worse"),
        ({"floor": None}, "—", ""),
    ],
)
def test_standing(changes, text, verdict):
    found = standing(some_figure(**changes))
    assert (found.text, found.verdict) == (text, verdict)


def test_strips_show_the_ratio_on_a_logarithmic_scale():
    places = [standing(some_figure(value=0.25 * ratio)) for ratio in (0.2, 1, 5, 100)]
    assert strip_limit(places[:3]) == 5
    ends = [ET.fromstring(strip(place, 5)).find("circle") for place in places[:3]]
    assert [float(dot.get("cx")) for dot in ends] == [6, 60, 114]
    assert [dot.get("class") for dot in ends] == ["better", "same", "worse"]
    # Beyond the limit there is an arrow in place of the dot.
    assert strip_limit(places) == 20
    assert ET.fromstring(strip(places[3], 20)).find("circle") is None
    assert strip(standing(some_figure(floor=None)), 5) is None


_NUMBERS = st.lists(st.none() | st.floats() | st.integers(-9, 9), max_size=6)


@settings(max_examples=40)
@given(_NUMBERS, st.dictionaries(st.text(max_size=30), _NUMBERS, max_size=3), st.booleans())
def test_any_curve_makes_a_chart(x, lines, log):
    curve = _curve(x, lines) | {"spreads": lines if log else {}}
    for svg in (line_chart(curve, "chart", log=log), row_chart(curve, "chart")):
        for node in ET.fromstring(svg).iter():
            coordinates = [node.get(name, "") for name in ("d", "x", "y", "width", "transform")]
            assert not re.search("nan|inf|e", " ".join(coordinates).replace("translate", ""))
