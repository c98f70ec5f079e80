"""A config file whose settings are a run's own: `--config=…/saved_config.py:RUN/config.json`."""

import json
from pathlib import Path

import ml_collections

from vaejax.config import default_config
from vaejax.config.saved import upgraded
from vaejax.errors import UserError


def get_config(path: str) -> ml_collections.ConfigDict:
    """Returns the settings that a run has saved.

    Args:
      path: path of the run's `config.json`.

    Raises:
      UserError: the file cannot be read, is not JSON, or does not hold sections of settings.
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
        # An unknown section is kept: `settings.resolve` reports it with all other mistakes.
        config[section] = {**config.get(section, {}), **values, **tuples}
    return config
