"""CelebA at 64 px, in the official layout: --config.data.path=DIR."""

from vaejax.config import default_config


def get_config():
    config = default_config()
    config.data.source = "celeba"
    config.data.path = "data/celeba"
    # What reaches a given quality soonest on two CPU cores; the table is in benchmarks/README.md.
    config.model.blocks = (0, 1, 1)
    config.optimizer.learning_rate = 2e-3
    config.train.batch_size = 32
    # About 20 minutes there. On an accelerator ask for more, in larger batches:
    # train.steps=50_000, train.batch_size=256.
    config.train.steps = 10_000
    config.train.eval_every = 1_000
    config.train.save_every = 500
    return config
