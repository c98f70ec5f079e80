"""Lists every setting with its default, its limits and the comment above it, as Markdown."""

import dataclasses
import inspect
import re

from vaejax.config import Config


def tables() -> str:
    """A heading and a table for each section of the schema."""
    return "\n".join(_section(section.name, section.type) for section in dataclasses.fields(Config))


def _section(name: str, schema: type) -> str:
    comments = _comments(schema)
    lines = [f"## {name}", "", inspect.getdoc(schema), "", "| setting | default | limits | note |",
             "|---|---|---|---|"]  # fmt: skip
    for field in dataclasses.fields(schema):
        cells = [f"`{name}.{field.name}`", f"`{field.default!r}`", _limits(field.metadata),
                 comments.get(field.name, "")]  # fmt: skip
        # Markdown would end a cell at a bar.
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join([*lines, ""])


def _limits(rules: dict) -> str:
    """The choices of a setting, or the range of its numbers."""
    if rules["choices"]:
        return ", ".join(f"`{choice}`" for choice in rules["choices"])
    low, high = (f"{rules[end]:,}" if rules[end] is not None else "" for end in ("low", "high"))
    if low and high:
        return f"{low} to {high}"
    return f"from {low}" if low else ""


def _comments(schema: type) -> dict[str, str]:
    """What the comments above each field of a class say."""
    found, above = {}, []
    for line in inspect.getsource(schema).splitlines():
        if comment := re.match(r"    # (.*)", line):
            above.append(comment[1])
        elif field := re.match(r"    (\w+): ", line):
            found[field[1]] = " ".join(above)
            above = []
        elif line.strip():
            above = []
    return found
