"""A network that predicts CelebA's 40 attributes, 64 px: --config.data.path=DIR.

It generates nothing: `python -m vaejax.evaluate --attributes=RUN` measures VAEs with it.
"""

from vaejax.config import default_config


def get_config():
    config = default_config()
    config.data.source = "celeba"
    config.data.path = "data/celeba"
    config.model.name = "attributes"
    config.optimizer.weight_decay = 0.05
    # Six epochs of 16,000 faces, some five minutes on two CPU cores; all of CelebA deserves more.
    config.train.steps = 1_500
    config.train.eval_every = 300
    config.train.save_every = 300
    return config
