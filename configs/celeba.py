"""CelebA at 64 px, in the official layout: --config.data.path=DIR."""

from vaejax.config import default_config


def get_config():
    config = default_config()
    config.data.source = "celeba"
    config.data.path = "data/celeba"
    # About 20 minutes on two CPU cores. On an accelerator use more: --config.train.steps=50_000.
    config.train.steps = 4_200
    config.train.eval_every = 700
    config.train.save_every = 350
    return config
