"""CelebA at 64 px, in the official layout: --config.data.path=DIR."""

from vaejax.config import default_config


def get_config():
    config = default_config()
    config.data.source = "celeba"
    config.data.path = "data/celeba"
    config.train.steps = 10_000
    return config
