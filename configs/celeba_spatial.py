"""CelebA at 64 px with a map of latents, 16 x 16 x 8: --config.data.path=DIR.

It trains in 40 minutes on two CPU cores.
"""

from vaejax.config import default_config


def get_config():
    config = default_config()
    config.data.source = "celeba"
    config.data.path = "data/celeba"
    config.model.name = "spatial"
    config.model.patch = 2
    config.model.widths = (48, 128)
    config.model.blocks = (0, 2)
    config.model.latent = 8
    config.prior.name = "standard_normal"
    config.optimizer.learning_rate = 2e-3
    config.train.batch_size = 32
    config.train.steps = 6_000
    config.train.eval_every = 1_000
    config.train.save_every = 500
    return config
