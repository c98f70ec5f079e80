"""Your own photographs, a folder or a zip: --config.data.path=DIR."""

from vaejax.config import default_config


def get_config():
    config = default_config()
    config.data.source = "folder"
    config.train.steps = 5_000
    config.train.eval_every = 500
    config.train.save_every = 500
    return config
