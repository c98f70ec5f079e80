"""Procedural faces at 32 px with a small ladder: no download, nine minutes on two cores."""

from vaejax.config import ladder_config


def get_config():
    config = ladder_config()
    config.data.image_size = (32, 32)
    config.data.synthetic_counts = (8_000, 500, 500)
    config.model.patch = 2
    # At 16, 8, 4, 2 and 1 px.
    config.model.widths = (48, 64, 96, 96, 96)
    config.model.blocks = (2, 3, 2, 0, 1)
    config.model.latent = 8
    config.model.scan = False
    config.likelihood.components = 5
    config.objective.warmup_steps = 300
    config.optimizer.learning_rate = 3e-3
    config.optimizer.ema_decay = 0.998
    config.train.steps = 3_000
    config.train.eval_every = 750
    config.train.save_every = 750
    return config
