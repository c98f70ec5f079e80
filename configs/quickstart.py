"""Procedural faces at 32 px: no download, a few minutes on a laptop's CPU."""

from vaejax.config import default_config


def get_config():
    config = default_config()
    config.data.image_size = (32, 32)
    config.data.synthetic_counts = (8000, 500, 500)
    config.model.patch = 2
    config.model.latent_size = 64
    config.train.steps = 2000
    config.train.eval_every = 500
    config.train.save_every = 500
    return config
