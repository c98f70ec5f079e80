"""CelebA at 64 px with a ladder of 14 groups and 1.6 M parameters: --config.data.path=DIR.

It trains for an hour on one CPU core.
"""

from vaejax.config import ladder_config


def get_config():
    config = ladder_config()
    config.data.source = "celeba"
    config.data.path = "data/celeba"
    # A position of the finest level is a square of 2 x 2 pixels: with 4 x 4, faces are blocky.
    config.model.patch = 2
    # At 32, 16, 8, 4, 2 and 1 px.
    config.model.widths = (32, 48, 64, 96, 96, 96)
    config.model.blocks = (1, 2, 4, 4, 2, 1)
    config.model.latent = 8
    config.model.scan = False
    config.likelihood.components = 5
    config.objective.warmup_steps = 500
    config.optimizer.learning_rate = 3e-3
    config.optimizer.ema_decay = 0.999
    config.train.steps = 6_400
    config.train.eval_every = 800
    config.train.save_every = 800
    return config
