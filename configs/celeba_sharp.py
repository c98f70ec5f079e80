"""CelebA at 64 px with a decoder that is sharpened against a discriminator: --config.data.path=DIR.

Two stages: the model by its likelihood, then its decoder alone. Some 40 minutes on two CPU cores.
"""

from vaejax.config import default_config


def get_config():
    config = default_config()
    config.data.source = "celeba"
    config.data.path = "data/celeba"
    config.train.steps = 4_200
    config.train.eval_every = 1_400
    config.train.save_every = 350
    config.finish.steps = 1_600
    config.finish.validations = 4
    return config
