"""Faces at 1024 px with a ladder of 64 groups: --config.data.path=DIR, a folder or zip of FFHQ.

A position of its finest level is a square of 4 x 4 pixels.

The TPU compiler's estimates (libtpu 0.0.42; nothing was run): with one picture a v5e needs 2.9 GiB
of its 16 and reaches at most 54 images/s, and 16 v5e reach 805; with 6 pictures a v5e needs 8.5 GiB
and reaches 21. With 32 pictures a v5p needs 48 GiB, which also fits a chip of 80 GB, and reaches
49. The batch of 16 below is for more than one v5e.
"""

from vaejax.config import ladder_config


def get_config():
    config = ladder_config()
    config.data.source = "folder"
    config.data.image_size = (1024, 1024)
    config.model.patch = 4
    # At 256, 128, 64, 32, 16, 8, 4, 2 and 1 px.
    config.model.widths = (64, 64, 128, 128, 256, 512, 512, 512, 512)
    config.model.blocks = (4, 8, 10, 14, 12, 8, 6, 0, 2)
    config.model.dtype = "bfloat16"
    config.model.hidden = (64, 64, 64, 64, 128, 128, 128, 128, 128)
    config.model.latent = 32
    config.model.remat = True
    config.optimizer.learning_rate = 5e-4
    config.train.batch_size = 16
    config.train.steps = 800_000
    config.train.eval_every = 10_000
    config.train.save_every = 1_000
    config.eval.batch_size = 4
    config.eval.grid = 2
    return config
