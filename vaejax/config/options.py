"""The fields of the schema: a default, limits, and what a run may do with a setting."""

import typing
from dataclasses import Field, field, fields
from typing import Any, NamedTuple


class Setting(NamedTuple):
    """What the schema knows of one setting.

    Attributes:
      type: type of its value.
      default: its value where nothing is said.
      choices: all values that it can have; empty where its type decides.
      low, high: limits of every number in it.
      may_change: whether a run may go on with another value; of other settings that would make
        another run.
      of_machine: whether the processes of a run may differ in it; such a setting may change too.
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
    """A field of the schema, with what `Setting` says of it."""
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
    """The classes that a section can be, by name; none where it is no union."""
    return {member.name: member for member in typing.get_args(section)}


def settings_of(section: Any) -> dict[str, Setting]:
    """The settings of a section, by key; of a union, those of all its members.

    Members that share a key share its type, and the first one's default and limits count. The
    name can be that of each.
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
