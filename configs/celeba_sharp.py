"""CelebA at 64 px with a decoder that is sharpened against a discriminator: --config.data.path=DIR.

Two stages: the model by its likelihood, then its decoder alone. Some 20 minutes on two CPU cores.
"""

from vaejax.config import default_config


def get_config():
    config = default_config()
    config.data.source = "celeba"
    config.data.path = "data/celeba"
    config.train.steps = 2_400
    config.train.eval_every = 800
    config.train.save_every = 400
    config.finish.steps = 800
    config.finish.validations = 4
    return config
