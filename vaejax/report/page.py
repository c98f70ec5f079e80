"""The HTML page of an evaluation: findings, figures, pictures, charts and the protocol."""

import base64
import hashlib
import io
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from vaejax.records.pictures import mark
from vaejax.report import tables
from vaejax.report.drawing import legend, series_of
from vaejax.report.line_chart import line_chart
from vaejax.report.markup import Markup, element, joined
from vaejax.report.row_chart import row_chart
from vaejax.report.style import STYLE

Sheet = UInt8[np.ndarray, "height width channel"]
# Sheets with fewer pixels a row are enlarged about to this width, at most three times.
SHEET_WIDTH, MOST = 704, 3
# Keys of the protocol that stand under the title, and the text before and after their values.
SUBTITLE = {
    "split": ("split ", ""),
    "image_size": ("", " px"),
    "checkpoint_step": ("step ", ""),
    "vaejax": ("vaejax ", ""),
    "date": ("", ""),
}
# Titles and notes of the curves that every evaluation has.
KNOWN = {
    "spectrum": (
        "Power spectrum",
        "Coarse shapes are on the left, fine details on the right. A line below that of real "
        "faces means that such details are missing (blur); a line above it means noise.",
    ),
    "kl_by_group": (
        "Information in each group of latents",
        "KL divergence from the prior: how much the decoder learns of a picture from each group. "
        "A group near 0 is not used.",
    ),
    "training_elbo": (
        "ELBO during training",
        "The bound that is trained. Still changing at the end: longer training would pay.",
    ),
}


def render(evaluation: Mapping[str, Any], sheets: Mapping[str, Sheet]) -> str:
    """Renders an evaluation as one HTML page that loads nothing and runs no script.

    It is a pure function: the same arguments give the same text.

    Args:
      evaluation: the JSON of an evaluation. All parts may be missing: `title`, `protocol` (values
        by name), `comparison` (rows of text by column),
        `figures` (a list of `evaluation.figures.Figure.as_json`), `results` (values by name; those
        that are not among the figures have a table of their own), `findings` (sentences),
        `curves` (by name, as `line_chart` and `row_chart` take them, with `title` and `note` where
        wanted; an `x` of words makes rows), and `captions` of sheets by title.
      sheets: pictures by title, grey, RGB or RGBA.

    Returns:
      The page, to be written as UTF-8.
    """
    protocol = evaluation.get("protocol") or {}
    figures = evaluation.get("figures") or []
    run = protocol.get("run")
    title = "Evaluation of a model of faces" if run is None else f"Evaluation of {run}"
    title = evaluation.get("title") or title
    captions = evaluation.get("captions") or {}
    parts = {
        "Findings": _findings(evaluation.get("findings") or []),
        "Summary": tables.summary(figures),
        "Comparison": tables.comparison(evaluation.get("comparison") or []),
        "Pictures": joined(_sheet(name, one, captions.get(name)) for name, one in sheets.items()),
        "Charts": _charts(evaluation.get("curves") or {}),
        "Figures by group": tables.groups(figures),
        "Other results": tables.others(evaluation.get("results") or {}, figures),
        "Protocol": tables.protocol(protocol),
    }
    sections = {name: content for name, content in parts.items() if content}
    body = element(
        "body",
        element("header", element("h1", title), _subtitle(protocol), _contents(sections)),
        element("main", (_section(name, content) for name, content in sections.items())),
        element("footer", "This page is one file: it loads nothing and runs no script."),
    )
    page = element("html", _head(title), body, lang="en")
    return f"<!DOCTYPE html>\n{page}\n"


def _head(title: str) -> Markup:
    digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'"
    return element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", Markup(STYLE)),
    )


def _subtitle(protocol: Mapping[str, Any]) -> Markup | None:
    words = [
        f"{before}{_grouped(protocol[key])}{after}"
        for key, (before, after) in SUBTITLE.items()
        if key in protocol
    ]
    return element("p", " · ".join(words), class_="subtitle") if words else None


def _grouped(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return " × ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) else tables.plain(value)


def _contents(names: Iterable[str]) -> Markup:
    links = (element("a", name, href=f"#{_anchor(name)}") for name in names)
    return element(
        "nav", element("ul", (element("li", link) for link in links)), aria_label="Parts"
    )


def _anchor(name: str) -> str:
    return name.lower().replace(" ", "-")


def _section(name: str, content: Markup) -> Markup:
    anchor = _anchor(name)
    heading = element("h2", name, id=anchor)
    return element("section", heading, content, aria_labelledby=anchor)


def _findings(findings: Iterable[str]) -> Markup | None:
    items = [element("li", finding) for finding in findings]
    return element("ul", items, class_="findings") if items else None


def _charts(curves: Mapping[str, Any]) -> Markup | None:
    drawn = [_chart(name, curve) for name, curve in curves.items() if curve]
    return element("div", drawn, class_="charts") if drawn else None


def _chart(name: str, curve: Mapping[str, Any]) -> Markup:
    title, note = KNOWN.get(name, (name.replace("_", " ").capitalize(), None))
    title, note = curve.get("title", title), curve.get("note", note)
    caption = element("figcaption", element("h3", title), element("p", note) if note else None)
    if name.endswith("_by_group") or any(isinstance(x, str) for x in curve["x"]):
        series = series_of(curve)
        names = legend(series) if len(series) > 1 else None
        return element("figure", caption, names, row_chart(curve, title))
    # Powers of natural pictures fall like a power of the frequency: a straight line of logarithms.
    return element("figure", caption, line_chart(curve, title, log=name.startswith("spectrum")))


def _sheet(title: str, sheet: Sheet, caption: str | None) -> Markup:
    height, width = sheet.shape[:2]
    factor = min(MOST, max(1, SHEET_WIDTH // width))
    file = io.BytesIO()
    picture = Image.fromarray(sheet[:, :, 0] if sheet.shape[2] == 1 else sheet)
    picture.save(file, "PNG", optimize=True, **mark("PNG"))
    image = element(
        "img",
        src=f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}",
        width=width * factor,
        height=height * factor,
        alt=f"Sheet of pictures: {title}. {caption or ''}".strip(),
        class_="pixels" if width <= SHEET_WIDTH else None,
    )
    text = element("p", caption) if caption else None
    return element(
        "figure", element("figcaption", element("h3", title), text), image, class_="sheet"
    )
