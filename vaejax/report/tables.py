"""The page's tables: figures against their floors, figures with their protocols, the protocol."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from vaejax.report.markup import Markup, element, joined
from vaejax.report.numbers import MISSING, Standing, finite, measured, standing
from vaejax.report.row_chart import strip, strip_axis, strip_limit

BETTER = {"lower": "↓ lower", "higher": "↑ higher", "floor": "= floor"}
VERDICTS = {
    "same": "at the floor",
    "worse": "worse",
    "better": "better",
    "below": "below",
    "above": "above",
}
READING = (
    "Each figure stands beside its floor: the same figure computed of real faces in place of the "
    "generated ones, which is what a perfect model would reach. ± is one standard deviation under "
    "resampling of the pictures. “At the floor” means that the two differ by less than two "
    "standard deviations. "
)
STRIPS = (
    "The dot shows their ratio on a logarithmic scale; it is hollow at the floor, and an arrow "
    "beyond the scale."
)
Figure = Mapping[str, Any]


def summary(figures: list[Figure]) -> Markup | None:
    """Returns the table of all figures against their floors, by group; None if there is none."""
    if not figures:
        return None
    standings = [standing(figure) for figure in figures]
    limit = strip_limit(standings)
    head = _head(
        "Figure",
        "Value",
        "Real faces (floor)",
        "Against the floor",
        strip_axis(limit),
        "Pictures",
        "Better",
    )
    bodies = []
    for group, members in _by_group(figures).items():
        heading = element("th", group, scope="rowgroup", colspan=7)
        rows = (_summary_row(i, figures[i], standings[i], limit) for i in members)
        bodies.append(element("tbody", element("tr", heading), rows))
    return element(
        "table",
        element("caption", READING, element("span", STRIPS, class_="strips")),
        head,
        bodies,
        class_="figures",
    )


def _summary_row(index: int, figure: Figure, place: Standing, limit: float) -> Markup:
    verdict = None
    if place.verdict:
        verdict = element("span", VERDICTS[place.verdict], class_=f"verdict {place.verdict}")
    return element(
        "tr",
        element("th", element("a", _label(figure), href=f"#figure-{index}"), scope="row"),
        *_values(figure),
        element("td", place.text, " ", verdict, data_label="Against the floor", class_="short"),
        element("td", strip(place, limit), class_="strips"),
        element("td", _counts(figure), data_label="Pictures", class_="short"),
        element("td", _better(figure), data_label="Better", class_="short"),
    )


def groups(figures: list[Figure]) -> Markup:
    """Returns a table for each group, which has the name and the protocol of each figure."""
    head = _head("Figure", "Value", "Real faces (floor)", "Pictures", "Protocol")
    parts = []
    for group, members in _by_group(figures).items():
        rows = (_protocol_row(i, figures[i]) for i in members)
        table = element("table", head, element("tbody", rows), class_="figures")
        parts += [element("h3", group), table]
    return joined(parts)


def _protocol_row(index: int, figure: Figure) -> Markup:
    # Long names may be broken after each underscore.
    first, *others = plain(figure.get("name")).split("_")
    name = element("code", first, (("_", element("wbr"), other) for other in others))
    return element(
        "tr",
        element("th", _label(figure), name, scope="row"),
        *_values(figure),
        element("td", _counts(figure), data_label="Pictures"),
        element("td", plain(figure.get("protocol")), data_label="Protocol", class_="wide"),
        id=f"figure-{index}",
    )


def others(results: Mapping[str, Any], figures: Iterable[Figure]) -> Markup | None:
    """Returns the table of those results that are not among the figures; None if there is none."""
    shown = {figure.get("name") for figure in figures}
    return _pairs(
        {name: _number(value) for name, value in results.items() if name not in shown},
        "Result",
    )


def protocol(values: Mapping[str, Any]) -> Markup | None:
    """Returns the table of the whole protocol; None if it is empty."""
    return _pairs({name: plain(value) for name, value in values.items()}, "Part of the protocol")


def comparison(rows: list[dict[str, str]]) -> Markup | None:
    """Returns a table of rows of text by column, each named by its first column."""
    if not rows:
        return None
    first, *others = rows[0]
    lines = (
        element(
            "tr",
            element("th", element("code", row[first]), scope="row"),
            (element("td", row[name], data_label=name, class_="short") for name in others),
        )
        for row in rows
    )
    return element("table", _head(first, *others), element("tbody", lines), class_="figures")


def _pairs(values: Mapping[str, Any], head: str) -> Markup | None:
    if not values:
        return None
    rows = (
        element("tr", element("th", element("code", name), scope="row"), element("td", value))
        for name, value in values.items()
    )
    return element("table", _head(head, "Value"), element("tbody", rows), class_="pairs")


def plain(value: Any) -> str:
    """Returns a value of the protocol as text; `—` if it is missing or not finite."""
    if value is None or (isinstance(value, float) and finite(value) is None):
        return MISSING
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _by_group(figures: list[Figure]) -> dict[str, list[int]]:
    """Returns the indices of each group's figures, in the order in which the groups begin."""
    found: dict[str, list[int]] = {}
    for index, figure in enumerate(figures):
        found.setdefault(plain(figure.get("group")), []).append(index)
    return found


def _head(*names: str | Markup) -> Markup:
    return element("thead", element("tr", (element("th", name, scope="col") for name in names)))


def _label(figure: Figure) -> str:
    return figure.get("label") or plain(figure.get("name"))


def _values(figure: Figure) -> tuple[Markup, Markup]:
    unit = figure.get("unit") or ""
    value = _number(figure.get("value"), figure.get("spread"), unit)
    floor = _number(figure.get("floor"), figure.get("floor_spread"), unit)
    return (
        element("td", value, data_label="Value", class_="short"),
        element("td", floor, data_label="Real faces (floor)", class_="short"),
    )


def _number(value: Any, spread: Any = None, unit: str = "") -> Markup | str:
    """Returns a number rounded for readers, with all its digits for programs and as a tooltip."""
    exact = finite(value)
    if exact is None:
        return MISSING
    return element("data", measured(value, spread, unit), value=repr(exact), title=repr(exact))


def _counts(figure: Figure) -> str:
    count, reference = finite(figure.get("count")), finite(figure.get("reference_count"))
    if count is None:
        return MISSING
    return f"{count:,.0f}" if reference is None else f"{count:,.0f} against {reference:,.0f}"


def _better(figure: Figure) -> str:
    better = plain(figure.get("better"))
    if better == "floor" and finite(figure.get("floor")) is None:
        return MISSING
    return BETTER.get(better, better)
