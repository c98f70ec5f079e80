"""Procedural faces at 48 px: no download, and faces in less than five minutes on two CPU cores."""

from vaejax.config import default_config


def get_config():
    config = default_config()
    config.data.image_size = (48, 48)
    config.data.synthetic_counts = (8_000, 500, 500)
    config.model.widths = (32, 64, 128)
    config.model.latent_size = 64
    # Smooth backgrounds are easy to predict: a scale for each position would weight them more
    # than the faces in front of them.
    config.likelihood.scale = "shared"
    config.prior.layers = 4
    # Small batches and a large learning rate make the most of a short run.
    config.optimizer.learning_rate = 4e-3
    config.train.batch_size = 32
    config.train.steps = 3_200
    config.train.eval_every = 800
    config.train.save_every = 800
    return config
