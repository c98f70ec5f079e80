"""CelebA at 64 px with a ladder of 62 groups and 132 M parameters: --config.data.path=DIR.

The TPU compiler's estimates (libtpu 0.0.42; nothing was run): with 32 pictures a v5e needs 7.3 GiB
of its 16 and reaches at most 490 images/s, and 16 v5e reach 7,558; with 64 pictures a v5e needs
10.7 GiB and reaches 408. With 448 pictures a v5p needs 59 GiB, which also fits a chip of 80 GB, and
reaches 660.
"""

from vaejax.config import ladder_config


def get_config():
    config = ladder_config()
    config.data.source = "celeba"
    config.data.path = "data/celeba"
    config.model.patch = 2
    # At 32, 16, 8, 4, 2 and 1 px.
    config.model.widths = (256, 256, 512, 1024, 1024, 1024)
    config.model.blocks = (30, 16, 10, 4, 0, 2)
    config.model.dtype = "bfloat16"
    config.model.hidden = (128, 128, 128, 256, 256, 256)
    config.model.latent = 32
    config.model.remat = True
    # Not measured; celeba_ladder.py trains with 6e-4.
    config.optimizer.learning_rate = 5e-4
    config.train.steps = 400_000
    config.train.eval_every = 5_000
    config.train.save_every = 1_000
    return config
