"""The Frey faces, 28 x 20 grey, with a ladder: --config.data.path=FILE.npz."""

from vaejax.config import default_config


def get_config():
    config = default_config()
    config.data.source = "array"
    config.data.path = "data/freyfaces.npz"
    config.data.image_size = (28, 20)
    config.data.channels = 1
    # The split that the literature uses: 1565 / 200 / 200 at random.
    config.data.holdout = (200, 200)
    config.data.flip = False
    config.model.name = "ladder"
    config.model.patch = 2
    config.model.widths = (64, 128)
    config.model.blocks = (3, 3)
    config.ladder.latent = 8
    config.ladder.dropout = 0.1
    config.likelihood.name = "mixture"
    config.likelihood.components = 5
    config.prior.fitted = ()
    config.optimizer.name = "adamax"
    config.optimizer.b2 = 0.999
    config.optimizer.guard = 5.0
    config.train.batch_size = 32
    config.train.steps = 4_000
    config.train.eval_every = 500
    config.train.save_every = 500
    config.eval.batch_size = 200
    return config
