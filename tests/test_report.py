"""Tests the HTML report of an evaluation: parses it, and reads charts, tables and pictures back."""

import base64
import hashlib
import io
import json
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from reports import parsed_page, some_evaluation, some_figure, text_of

from vaejax.report import render
from vaejax.report.markup import Markup, element

EVIL = """<script>alert("1")</script>&'\x00\ud800"""
VOID = {"img", "meta", "wbr"}
TINY = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)


SHEETS = {"Samples": TINY, "Grey": np.full((5, 900, 1), 7, np.uint8)}


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
    return render(some_evaluation(), SHEETS)


def test_the_page_is_well_formed(page):
    parsed_page(page)
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
    tree = parsed_page(page)
    policy = tree.find(".//meta[@http-equiv='Content-Security-Policy']").get("content")
    style = re.search("<style>(.*?)</style>", page, re.DOTALL).group(1)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy.startswith("default-src 'none'")
    assert f"style-src 'sha256-{digest}'" in policy
    assert "unsafe" not in policy


def test_links_lead_somewhere(page):
    tree = parsed_page(page)
    ids = [node.get("id") for node in tree.iter() if node.get("id")]
    assert len(ids) == len(set(ids))
    references = {node.get("href") for node in tree.iter("a")}
    labels = {node.get("aria-labelledby") for node in tree.iter("section")}
    assert len(references) > 40
    assert references | {f"#{label}" for label in labels} <= {f"#{name}" for name in ids}


def test_every_figure_appears_with_all_its_digits(page):
    evaluation, tree = some_evaluation(), parsed_page(page)
    shown = [node.get("value") for node in tree.iter("data")]
    for figure in evaluation["figures"]:
        assert shown.count(repr(figure["value"])) == 2  # in the summary and in its group
        assert figure["name"] in {text_of(node) for node in tree.iter("code")}
    assert repr(0.125) in shown  # a result that is no figure
    summary, *groups = [t for t in tree.iter("table") if t.get("class") == "figures"]
    assert len(groups) == 4
    assert len(summary.findall(".//th[@scope='row']")) == 40
    assert len(summary.findall(".//th[@scope='rowgroup']")) == 4
    for table in tree.iter("table"):
        assert all(cell.get("scope") for cell in table.iter("th"))


def test_a_row_of_the_summary_says_where_the_figure_stands():
    tree = parsed_page(render({"figures": [some_figure()]}, {}))
    row = tree.find(".//th[@scope='row']/..")
    cells = [text_of(cell).strip() for cell in row]
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
    assert [text_of(node) for node in parsed_page(page).iter("h2")] == [
        "Findings",
        "Summary",
        "Pictures",
        "Charts",
        "Figures by group",
        "Other results",
        "Protocol",
    ]


def test_the_same_input_gives_the_same_bytes(page):
    assert render(some_evaluation(), {name: one.copy() for name, one in SHEETS.items()}) == page
    # An evaluation is read back from JSON.
    assert render(json.loads(json.dumps(some_evaluation())), SHEETS) == page


def test_an_empty_evaluation_has_a_page():
    for evaluation in ({}, {"figures": [], "protocol": {}, "results": {}, "curves": {}}):
        tree = parsed_page(render(evaluation, {}))
        assert text_of(tree.find(".//h1")) == "Evaluation of a model of faces"
        assert not list(tree.iter("table")) and not list(tree.iter("h2"))


@pytest.mark.parametrize("missing", [None, math.nan, math.inf])
def test_missing_values_are_dashes(missing):
    names = ("value", "spread", "floor", "floor_spread", "count", "reference_count", "protocol")
    gone = some_figure(**dict.fromkeys(names, missing))
    gone["protocol"] = None
    evaluation = {
        "figures": [gone, some_figure("other", floor=missing), {"name": "bare"}],
        "results": {"lost": missing},
        "protocol": {"seed": missing},
        "curves": {
            "spectrum": some_evaluation()["curves"]["spectrum"] | {"lines": {"a": [missing]}}
        },
    }
    page = render(evaluation, {})
    words = {text_of(node).strip() for node in parsed_page(page).iter("td")}
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
        "figures": [some_figure(**dict.fromkeys(strings, EVIL))],
        "results": {EVIL: 1.0},
        "findings": [EVIL],
        "curves": curves,
        "captions": {EVIL: EVIL},
    }
    page = render(evaluation, {EVIL: TINY})
    page.encode()
    tree, tags = parsed_page(page), _Tags(page)
    assert "script" not in {tag for tag, _ in tags.found}
    clean = EVIL.replace("\x00", "\ufffd").replace("\ud800", "\ufffd")
    assert text_of(tree.find(".//h1")) == f"Evaluation of {clean}"
    assert clean in tree.find(".//img").get("alt")


def test_an_element_escapes_text_but_not_markup():
    assert element("p", "a<b", Markup("<i>"), [1, None, ("&",)]) == "<p>a&lt;b<i>1&amp;</p>"
    assert element("a", href='"', data_label="x", id=None) == '<a href="&quot;" data-label="x"></a>'


def test_sheets_are_embedded_unchanged(page):
    images = list(parsed_page(page).iter("img"))
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


def test_real_faces_have_the_colour_of_the_text_in_every_chart(page):
    styles = {
        node.get("class")
        for node in parsed_page(page).iter("path")
        if node.get("class", "").startswith(("line ", "mark "))
    }
    assert {"line real", "mark real", "line s1", "mark s1"} <= styles


def test_charts_tell_their_content_in_words(page):
    charts = [node for node in parsed_page(page).iter("svg") if node.get("role") == "img"]
    described = [node for node in charts if node.find("desc") is not None]
    assert len(described) == 3
    assert all(node.find("title") is not None for node in charts)
    assert "real faces: 0 at the start, −3.010 at the end" in text_of(described[0].find("desc"))


@settings(max_examples=60)
@given(*[st.none() | st.floats()] * 4, st.sampled_from(["lower", "higher", "floor", None]))
def test_any_numbers_make_a_page(value, spread, floor, floor_spread, better):
    figure = some_figure(
        value=value,
        spread=spread and abs(spread),
        floor=floor,
        floor_spread=floor_spread and abs(floor_spread),
        better=better,
    )
    parsed_page(render({"figures": [figure]}, {}))
