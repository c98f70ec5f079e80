"""Formats numbers for people, in Markdown tables."""

from typing import Any

Row = dict[str, Any]


def markdown(rows: list[Row]) -> str:
    """Formats rows as a Markdown table, one column for each key; each value as by `cell`.

    >>> print(markdown([{"chip": "v5e", "GiB": 16.0}]))
    | chip | GiB |
    |-----:|----:|
    |  v5e |  16 |
    """
    columns = list(dict.fromkeys(name for row in rows for name in row))
    cells = [columns] + [[cell(row.get(name)) for name in columns] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    lines = [
        "| " + " | ".join(text.rjust(width) for text, width in zip(line, widths)) + " |"
        for line in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 1) + ":" for width in widths) + "|")
    return "\n".join(lines)


def cell(value: Any) -> str:
    """Formats one value of a table.

    Floats have three significant digits, and no decimals from 1000 on. None becomes empty, the
    items of a list are separated by spaces.
    """
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 999.5 else f"{value:,.0f}"
    if isinstance(value, (list, tuple)):
        return " ".join(cell(item) for item in value)
    return "" if value is None else str(value)
