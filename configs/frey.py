"""The Frey faces of the first VAE paper, 28 x 20 pixels, grey: --config.data.path=FILE.npz."""

from vaejax.config import default_config


def get_config():
    config = default_config()
    config.data.source = "array"
    config.data.path = "data/freyfaces.npz"
    config.data.image_size = (28, 20)
    config.data.channels = 1
    # The split of the literature: 1565 / 200 / 200 at random.
    config.data.holdout = (200, 200)
    config.data.flip = False
    config.model.patch = 2
    config.model.widths = (64, 128)
    config.model.blocks = (1, 1)
    config.model.latent_size = 32
    config.train.steps = 2_000
    config.train.eval_every = 250
    config.train.save_every = 250
    return config
