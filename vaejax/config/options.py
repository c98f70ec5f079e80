"""The fields of the schema: a default, limits, and whether a run may change a setting."""

import typing
from dataclasses import Field, field, fields
from typing import Any, NamedTuple


class Setting(NamedTuple):
    """The schema's entry for one setting.

    Attributes:
      type: type of its value.
      default: value that it has if none is given.
      choices: all allowed values; empty if only type and limits restrict them.
      low, high: inclusive limits of every number in the value; None for no limit.
      may_change: whether a run may be resumed with another value; another value of any other
        setting makes another run.
      of_machine: whether the processes of a run may have different values; implies `may_change`.
    """

    type: Any
    default: Any
    choices: tuple
    low: float | int | None
    high: float | int | None
    may_change: bool
    of_machine: bool


def option(
    default: Any,
    *,
    choices: tuple = (),
    low: float | int | None = None,
    high: float | int | None = None,
    may_change: bool = False,
    of_machine: bool = False,
) -> Any:
    """Returns a dataclass field of the schema; `Setting` explains the arguments."""
    return field(
        default=default,
        metadata={
            "choices": choices,
            "low": low,
            "high": high,
            "may_change": may_change or of_machine,
            "of_machine": of_machine,
        },
    )


def members(section: Any) -> dict[str, Any]:
    """Returns the classes of a section that is a union, by name; empty for any other section."""
    return {member.name: member for member in typing.get_args(section)}


def settings_of(section: Any) -> dict[str, Setting]:
    """Returns the settings of a section by key; for a union, those of all its members.

    Members that share a key share its type, and the default and limits of the first one count. The
    choices of `name` are the names of the members.
    """
    found: dict[str, Setting] = {}
    for member in members(section).values() or (section,):
        for entry in fields(member):
            found.setdefault(entry.name, _setting(entry))
    if names := tuple(members(section)):
        found["name"] = found["name"]._replace(choices=names)
    return found


def _setting(entry: Field) -> Setting:
    return Setting(type=entry.type, default=entry.default, **entry.metadata)
