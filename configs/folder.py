"""Your own photographs, a folder or a zip: --config.data.path=DIR."""

from vaejax.config import default_config


def get_config():
    config = default_config()
    config.data.source = "folder"
    # Enough for two thousand photographs, which a longer run learns by heart; with ten times as
    # many, ask for ten times the steps.
    config.train.steps = 2_000
    config.train.eval_every = 250
    config.train.save_every = 250
    return config
