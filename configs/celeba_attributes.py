"""A network that predicts CelebA's 40 attributes, 64 px: --config.data.path=DIR.

It generates nothing: `python -m vaejax.evaluate --attributes=RUN` measures VAEs with it.
"""

from vaejax.config import default_config


def get_config():
    config = default_config()
    config.data.source = "celeba"
    config.data.path = "data/celeba"
    config.model.name = "attributes"
    config.model.widths = (48, 96, 192)
    config.model.blocks = (1, 1, 1)
    config.train.steps = 2_000
    config.train.eval_every = 250
    config.train.save_every = 250
    return config
