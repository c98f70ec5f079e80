"""Tests the HTML report of an evaluation: parses it, and reads charts, tables and pictures back."""

import base64
import hashlib
import io
import itertools
import json
import math
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vaejax.report import render
from vaejax.report.line_chart import PLOT_HEIGHT, TOP, apart, line_chart
from vaejax.report.markup import Markup, element
from vaejax.report.numbers import finite, measured, standing
from vaejax.report.row_chart import row_chart, strip, strip_limit
from vaejax.report.scales import Scale, extent, ticks

EVIL = """<script>alert("1")</script>&'\x00\ud800"""
VOID = {"img", "meta", "wbr"}
TINY = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)


def _figure(name="fid", **changes):
    return {
        "name": name,
        "group": "Samples against held-out faces",
        "label": "Fréchet distance",
        "value": 0.51234,
        "spread": 0.0119,
        "floor": 0.25,
        "floor_spread": 0.01,
        "count": 2500,
        "reference_count": 2000,
        "unit": "",
        "better": "lower",
        "protocol": "features of a network; k = 5",
    } | changes


def _evaluation():
    rng = np.random.default_rng(0)
    figures = [
        _figure(
            f"figure_{i}",
            group=f"group {i % 4}",
            value=float(rng.normal() * 10.0 ** rng.integers(-6, 6)),
        )
        for i in range(40)
    ]
    bins = list(range(1, 33))
    return {
        "protocol": {"run": "ladder", "split": "valid", "checkpoint_step": 100_000, "beta": 0.5},
        "figures": figures,
        "results": {one["name"]: one["value"] for one in figures} | {"gradient_norm": 0.125},
        "findings": ["Blurred: 40% of the energy above 8 cycles per face is missing."],
        "curves": {
            "spectrum": {
                "x": bins,
                "x_label": "cycles per picture",
                "y_label": "log10 power",
                "lines": {
                    "real faces": [-2 * math.log10(x) for x in bins],
                    "samples": [-2.5 * math.log10(x) for x in bins],
                },
            },
            "kl_by_group": _rows({"KL": [0.1, 0.4, 0.2]}),
            "slices": _rows(
                {"real faces": [0.1, None, 0.2], "samples": [0.2, 0.3, 0.4]},
                spreads={"samples": [0.01, 0.02, None]},
            ),
        },
        "captions": {"Samples": "Seed 0."},
    }


def _rows(lines, **more):
    return {"x": ["a", "b", "c"], "x_label": "kind", "y_label": "bits", "lines": lines} | more


SHEETS = {"Samples": TINY, "Grey": np.full((5, 900, 1), 7, np.uint8)}


def _tree(page):
    """Parses the page as XML, which finds each tag that is not closed."""
    return ET.fromstring(page.removeprefix("<!DOCTYPE html>"))


def _text(node):
    return "".join(node.itertext())


class _Tags(HTMLParser):
    """Records the tags as a browser's parser sees them, and that they are closed in order."""

    def __init__(self, page):
        super().__init__()
        self.open, self.found = [], []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        assert tag in VOID
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def page():
    return render(_evaluation(), SHEETS)


def test_the_page_is_well_formed(page):
    _tree(page)
    tags = _Tags(page)
    assert not tags.open
    # In HTML, an element that is not void cannot end itself: `<td/>` would stay open.
    assert {tag for tag, _ in tags.found if tag in VOID} == VOID
    assert page.startswith("<!DOCTYPE html>\n<html")


def test_the_page_loads_nothing_and_runs_nothing(page):
    for tag, attributes in _Tags(page).found:
        assert tag not in {"script", "link", "iframe", "object", "base", "form"}
        for name, value in attributes.items():
            assert not name.startswith("on") and name != "style"
            if name in {"src", "href", "srcset", "data"}:
                assert value.startswith(("data:image/png;base64,", "#"))
    assert "url(" not in page and "@import" not in page and "://" not in page


def test_the_policy_allows_only_the_page_s_own_style(page):
    tree = _tree(page)
    policy = tree.find(".//meta[@http-equiv='Content-Security-Policy']").get("content")
    style = re.search("<style>(.*?)</style>", page, re.DOTALL).group(1)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy.startswith("default-src 'none'")
    assert f"style-src 'sha256-{digest}'" in policy
    assert "unsafe" not in policy


def test_links_lead_somewhere(page):
    tree = _tree(page)
    ids = [node.get("id") for node in tree.iter() if node.get("id")]
    assert len(ids) == len(set(ids))
    references = {node.get("href") for node in tree.iter("a")}
    labels = {node.get("aria-labelledby") for node in tree.iter("section")}
    assert len(references) > 40
    assert references | {f"#{label}" for label in labels} <= {f"#{name}" for name in ids}


def test_every_figure_appears_with_all_its_digits(page):
    evaluation, tree = _evaluation(), _tree(page)
    shown = [node.get("value") for node in tree.iter("data")]
    for figure in evaluation["figures"]:
        assert shown.count(repr(figure["value"])) == 2  # in the summary and in its group
        assert figure["name"] in {_text(node) for node in tree.iter("code")}
    assert repr(0.125) in shown  # a result that is no figure
    summary, *groups = [t for t in tree.iter("table") if t.get("class") == "figures"]
    assert len(groups) == 4
    assert len(summary.findall(".//th[@scope='row']")) == 40
    assert len(summary.findall(".//th[@scope='rowgroup']")) == 4
    for table in tree.iter("table"):
        assert all(cell.get("scope") for cell in table.iter("th"))


def test_a_row_of_the_summary_says_where_the_figure_stands():
    tree = _tree(render({"figures": [_figure()]}, {}))
    row = tree.find(".//th[@scope='row']/..")
    cells = [_text(cell).strip() for cell in row]
    assert cells == [
        "Fréchet distance",
        "0.512 ± 0.012",
        "0.250 ± 0.010",
        "2.05× worse",
        "",
        "2,500 against 2,000",
        "↓ lower",
    ]


def test_the_findings_come_first(page):
    assert [_text(node) for node in _tree(page).iter("h2")] == [
        "Findings",
        "Summary",
        "Pictures",
        "Charts",
        "Figures by group",
        "Other results",
        "Protocol",
    ]


def test_the_same_input_gives_the_same_bytes(page):
    assert render(_evaluation(), {name: one.copy() for name, one in SHEETS.items()}) == page
    # An evaluation is read back from JSON.
    assert render(json.loads(json.dumps(_evaluation())), SHEETS) == page


def test_an_empty_evaluation_has_a_page():
    for evaluation in ({}, {"figures": [], "protocol": {}, "results": {}, "curves": {}}):
        tree = _tree(render(evaluation, {}))
        assert _text(tree.find(".//h1")) == "Evaluation of a model of faces"
        assert not list(tree.iter("table")) and not list(tree.iter("h2"))


@pytest.mark.parametrize("missing", [None, math.nan, math.inf])
def test_missing_values_are_dashes(missing):
    names = ("value", "spread", "floor", "floor_spread", "count", "reference_count", "protocol")
    gone = _figure(**dict.fromkeys(names, missing))
    gone["protocol"] = None
    evaluation = {
        "figures": [gone, _figure("other", floor=missing), {"name": "bare"}],
        "results": {"lost": missing},
        "protocol": {"seed": missing},
        "curves": {"spectrum": _evaluation()["curves"]["spectrum"] | {"lines": {"a": [missing]}}},
    }
    page = render(evaluation, {})
    words = {_text(node).strip() for node in _tree(page).iter("td")}
    assert "—" in words
    assert not re.search(r"\b(nan|inf|None|null)\b", page)


def test_everything_is_escaped():
    curves = {
        f"{EVIL}{i}": {
            "x": x,
            "x_label": EVIL,
            "y_label": EVIL,
            "title": EVIL,
            "note": EVIL,
            "lines": {EVIL: [1, 2]},
        }
        for i, x in enumerate(([1, 2], [EVIL, "b"]))
    }
    strings = ("name", "group", "label", "unit", "better", "protocol")
    evaluation = {
        "protocol": {"run": EVIL, EVIL: EVIL, "list": [EVIL]},
        "figures": [_figure(**dict.fromkeys(strings, EVIL))],
        "results": {EVIL: 1.0},
        "findings": [EVIL],
        "curves": curves,
        "captions": {EVIL: EVIL},
    }
    page = render(evaluation, {EVIL: TINY})
    page.encode()
    tree, tags = _tree(page), _Tags(page)
    assert "script" not in {tag for tag, _ in tags.found}
    clean = EVIL.replace("\x00", "\ufffd").replace("\ud800", "\ufffd")
    assert _text(tree.find(".//h1")) == f"Evaluation of {clean}"
    assert clean in tree.find(".//img").get("alt")


def test_an_element_escapes_text_but_not_markup():
    assert element("p", "a<b", Markup("<i>"), [1, None, ("&",)]) == "<p>a&lt;b<i>1&amp;</p>"
    assert element("a", href='"', data_label="x", id=None) == '<a href="&quot;" data-label="x"></a>'


def test_sheets_are_embedded_unchanged(page):
    images = list(_tree(page).iter("img"))
    for image, (title, sheet) in zip(images, SHEETS.items()):
        encoded = image.get("src").removeprefix("data:image/png;base64,")
        shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))))
        np.testing.assert_array_equal(shown.reshape(sheet.shape), sheet)
        assert title in image.get("alt")
    small, wide = images
    # Three times as wide and as high: whole pixels of 4 x 6 ones.
    assert (small.get("width"), small.get("height"), small.get("class")) == ("18", "12", "pixels")
    assert (wide.get("width"), wide.get("height"), wide.get("class")) == ("900", "5", None)
    assert small.get("alt") == "Sheet of pictures: Samples. Seed 0."


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
    root = ET.fromstring(row_chart(_rows({"KL": [1.0, 4.0, None]}), "chart"))
    first, second = root.iter("rect")
    assert first.get("x") == second.get("x")
    assert float(second.get("width")) == pytest.approx(4 * float(first.get("width")), abs=0.3)
    words = [node.text for node in root.iter("text")]
    assert {"a", "b", "c", "1", "4", "—", "bits", "kind"} <= set(words)


def test_whiskers_are_one_spread_on_either_side():
    curve = _rows({"samples": [1.0, 2.0, 3.0]}, spreads={"samples": [0.25, 0.5, None]})
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


def test_real_faces_have_the_colour_of_the_text_in_every_chart(page):
    styles = {
        node.get("class")
        for node in _tree(page).iter("path")
        if node.get("class", "").startswith(("line ", "mark "))
    }
    assert {"line real", "mark real", "line s1", "mark s1"} <= styles


def test_charts_tell_their_content_in_words(page):
    charts = [node for node in _tree(page).iter("svg") if node.get("role") == "img"]
    described = [node for node in charts if node.find("desc") is not None]
    assert len(described) == 3
    assert all(node.find("title") is not None for node in charts)
    assert "real faces: 0 at the start, −3.010 at the end" in _text(described[0].find("desc"))


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


@settings(max_examples=60)
@given(*[st.none() | st.floats()] * 4, st.sampled_from(["lower", "higher", "floor", None]))
def test_any_numbers_make_a_page(value, spread, floor, floor_spread, better):
    figure = _figure(
        value=value,
        spread=spread and abs(spread),
        floor=floor,
        floor_spread=floor_spread and abs(floor_spread),
        better=better,
    )
    _tree(render({"figures": [figure]}, {}))


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
    found = standing(_figure(**changes))
    assert (found.text, found.verdict) == (text, verdict)


def test_strips_show_the_ratio_on_a_logarithmic_scale():
    places = [standing(_figure(value=0.25 * ratio)) for ratio in (0.2, 1, 5, 100)]
    assert strip_limit(places[:3]) == 5
    ends = [ET.fromstring(strip(place, 5)).find("circle") for place in places[:3]]
    assert [float(dot.get("cx")) for dot in ends] == [6, 60, 114]
    assert [dot.get("class") for dot in ends] == ["better", "same", "worse"]
    # Beyond the limit there is an arrow in place of the dot.
    assert strip_limit(places) == 20
    assert ET.fromstring(strip(places[3], 20)).find("circle") is None
    assert strip(standing(_figure(floor=None)), 5) is None


_NUMBERS = st.lists(st.none() | st.floats() | st.integers(-9, 9), max_size=6)


@settings(max_examples=40)
@given(_NUMBERS, st.dictionaries(st.text(max_size=30), _NUMBERS, max_size=3), st.booleans())
def test_any_curve_makes_a_chart(x, lines, log):
    curve = _curve(x, lines) | {"spreads": lines if log else {}}
    for svg in (line_chart(curve, "chart", log=log), row_chart(curve, "chart")):
        for node in ET.fromstring(svg).iter():
            coordinates = [node.get(name, "") for name in ("d", "x", "y", "width", "transform")]
            assert not re.search("nan|inf|e", " ".join(coordinates).replace("translate", ""))
