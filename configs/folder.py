"""Your own photographs, a folder or a zip: --config.data.path=DIR."""

from vaejax.config import default_config


def get_config():
    config = default_config()
    config.data.source = "folder"
    # As in configs/celeba.py.
    config.model.blocks = (0, 1, 1)
    config.optimizer.learning_rate = 2e-3
    config.train.batch_size = 32
    config.train.steps = 10_000
    config.train.eval_every = 1_000
    config.train.save_every = 500
    return config
