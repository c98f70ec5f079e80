"""Reads and writes the settings of a run as JSON; reads those of version 0.1 too."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from vaejax.config import Config
from vaejax.config.settings import resolve, without_meaning
from vaejax.errors import UserError
from vaejax.files.atomic import replacing


def to_json(config: Config) -> str:
    """Returns the settings as indented JSON, with the keys in the schema's order."""
    return json.dumps(dataclasses.asdict(config), indent=2) + "\n"


def from_json(text: str) -> Config:
    """Returns the settings that `to_json`, or version 0.1, has written as `text`.

    Raises:
      ValueError: `text` is not JSON.
      UserError: as `resolve` raises it.
    """
    return resolve_saved(json.loads(text))


def resolve_saved(values: Any) -> Config:
    """Returns the settings that a run has saved, checked.

    Args:
      values: nested mapping of settings, as their JSON holds them.

    Raises:
      UserError: as `resolve` raises it.
    """
    return resolve(upgraded(values))


def save_json(path: Path, config: Config) -> None:
    """Writes the settings to `path` as JSON, atomically.

    Raises:
      OSError: `path` cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_text(to_json(config))


def load_json(path: Path) -> Config:
    """Reads the settings that `save_json`, or version 0.1, wrote to `path`.

    Raises:
      UserError: the file cannot be read, is not JSON, or holds settings that are not valid.
    """
    try:
        return from_json(path.read_text())
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}); name the work directory of a run"
        ) from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is no JSON ({error}); restore it, or begin a new run") from error
    except UserError as error:
        raise UserError(f"{path} does not fit this version of vaejax: {error}") from error


def upgraded(values: Any) -> Any:
    """Returns settings that version 0.1 saved in the layout of this version.

    Version 0.1 kept a ladder's own settings in a section `ladder`, the settings of all likelihoods
    and priors whichever was named, and a prior of a flat z beside a ladder, which has its own.

    Args:
      values: sections of settings. Those of this version, and anything else, are returned
        unchanged.
    """
    if not isinstance(values, dict) or not all(isinstance(part, dict) for part in values.values()):
        return values
    sections = {name: dict(part) for name, part in values.items()}
    ladder = sections.pop("ladder", {})
    if sections.get("model", {}).get("name") == "ladder":
        sections["model"] |= ladder
        sections["prior"] = {**sections.get("prior", {}), "name": "hierarchical"}
    for name, section in sections.items():
        for key in without_meaning(name, str(section.get("name"))):
            section.pop(key, None)
    return sections
