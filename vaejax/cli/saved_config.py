"""A config file whose settings are a run's own: `--config=…/saved_config.py:RUN/config.json`."""

import json
from pathlib import Path

import ml_collections

from vaejax.config import default_config
from vaejax.config.saved import upgraded
from vaejax.errors import UserError


def get_config(path: str) -> ml_collections.ConfigDict:
    """The settings that a run has saved.

    Raises:
      UserError: the file is no JSON of settings.
    """
    try:
        saved = json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"--config={path} cannot be read as JSON ({error})") from error
    if not isinstance(saved, dict) or not all(isinstance(part, dict) for part in saved.values()):
        raise UserError(f"--config={path} holds no settings; name a run's config.json")
    config = default_config()
    for section, values in upgraded(saved).items():
        tuples = {key: tuple(value) for key, value in values.items() if isinstance(value, list)}
        # A section that is none is refused, with all else, where settings are checked.
        config[section] = {**config.get(section, {}), **values, **tuples}
    return config
