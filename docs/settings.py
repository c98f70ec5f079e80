"""Lists every setting with its default, its limits and the comment above it, as Markdown."""

import inspect
import re

from vaejax.config.options import Setting, members, settings_of
from vaejax.config.settings import SECTIONS


def tables() -> str:
    """A heading for each section of the schema, and a table for each of its classes."""
    return "\n".join(_section(name, kind) for name, kind in SECTIONS.items())


def _section(section: str, kind: type) -> str:
    classes = members(kind)
    if not classes:
        return "\n".join([f"## {section}", "", *_table(section, kind)])
    names = ", ".join(f"`{name}`" for name in classes)
    default = settings_of(kind)["name"].default
    lines = [f"## {section}", "", f"`{section}.name` is one of {names}; default `{default}`.", ""]
    for name, schema in classes.items():
        lines += [f"### {section}.name={name}", "", *_table(section, schema)]
    return "\n".join(lines)


def _table(section: str, schema: type) -> list[str]:
    own = {key: setting for key, setting in settings_of(schema).items()
           if not (key == "name" and not setting.choices)}  # fmt: skip
    lines = [inspect.getdoc(schema), ""]
    if own:
        lines += ["| setting | default | limits | note |", "|---|---|---|---|"]
    comments = _comments(schema)
    for key, setting in own.items():
        cells = [f"`{section}.{key}`", f"`{setting.default!r}`", _limits(setting),
                 comments.get(key, "")]  # fmt: skip
        # Markdown would end a cell at a bar.
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return [*lines, ""]


def _limits(setting: Setting) -> str:
    """The choices of a setting, or the range of its numbers."""
    if setting.choices:
        return ", ".join(f"`{choice}`" for choice in setting.choices)
    low, high = (f"{end:,}" if end is not None else "" for end in (setting.low, setting.high))
    if low and high:
        return f"{low} to {high}"
    return f"from {low}" if low else ""


def _comments(schema: type) -> dict[str, str]:
    """What the comments above each field of a class and of its bases say."""
    found, above = {}, []
    for kind in reversed(schema.__mro__[:-1]):
        for line in inspect.getsource(kind).splitlines():
            if comment := re.match(r"    # (.*)", line):
                above.append(comment[1])
            elif field := re.match(r"    (\w+): ", line):
                found[field[1]] = " ".join(above)
                above = []
            elif line.strip():
                above = []
    return found
