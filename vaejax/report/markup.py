"""Builds HTML and SVG whose text is always escaped, and which is well-formed XML too."""

import html
import re
from collections.abc import Iterable
from typing import Any

# HTML elements that have no end tag.
_VOID = {"img", "meta", "wbr"}
# Everything that XML 1.0, section 2.2, does not allow in a document, even escaped.
_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Markup(str):
    """Text that is HTML already; any other text is escaped where it becomes part of an element."""


def element(name: str, /, *children: Any, **attributes: Any) -> Markup:
    """Returns an element of HTML or SVG.

    Args:
      name: the tag's name.
      children: `Markup`, text, numbers, or iterables of them; None is left out.
      attributes: values by name, where `class_` means `class` and `text_anchor` means
        `text-anchor`; an attribute that is None is left out.

    >>> element("p", "1 < 2", class_="note")
    '<p class="note">1 &lt; 2</p>'
    """
    opening = name + "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_escaped(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Markup(f"<{opening}/>")
    return Markup(f"<{opening}>{joined(children)}</{name}>")


def joined(children: Iterable[Any]) -> Markup:
    """Returns the markup of `children` (as in `element`), one after the other."""
    return Markup("".join(map(_markup, children)))


def _markup(child: Any) -> str:
    if child is None:
        return ""
    if isinstance(child, Markup):
        return child
    if isinstance(child, Iterable) and not isinstance(child, str):
        return joined(child)
    return _escaped(child)


def _escaped(value: Any) -> str:
    return html.escape(_FORBIDDEN.sub("\ufffd", str(value)))
