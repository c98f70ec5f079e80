"""Settings as a run keeps them: JSON, of this version or of 0.1."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from vaejax.config import Config
from vaejax.config.settings import resolve, without_meaning
from vaejax.errors import UserError
from vaejax.files.atomic import replacing


def to_json(config: Config) -> str:
    """The settings as indented JSON, keys in the schema's order."""
    return json.dumps(dataclasses.asdict(config), indent=2) + "\n"


def from_json(text: str) -> Config:
    """The inverse of `to_json`, also of version 0.1's; checks as `resolve` does."""
    return resolve_saved(json.loads(text))


def resolve_saved(values: Any) -> Config:
    """The settings that a run has saved, as nested mappings; checks as `resolve` does."""
    return resolve(upgraded(values))


def save_json(path: Path, config: Config) -> None:
    """Writes `to_json`, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(to_json(config))


def load_json(path: Path) -> Config:
    """Reads what `save_json` wrote.

    Raises:
      UserError: the file is missing, or no config of this version.
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
    """Settings that version 0.1 saved, as this version has them.

    It kept a ladder's own settings in a section `ladder`, the settings of all likelihoods and
    priors whichever was named, and a prior of a flat z beside a ladder, which has its own.

    Args:
      values: sections of settings; of this version, or none at all, they stay as they are.
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
