"""Faces at 256 px with a ladder of 66 groups: --config.data.path=DIR, a folder or zip of FFHQ.

A position of its finest level is a square of 2 x 2 pixels, so each level has half the side that it
would have with patch = 1, and a quarter of the cost and of the latents.

The TPU compiler's estimates (libtpu 0.0.42; nothing was run): with 8 pictures a v5e needs 5.4 GiB
of its 16 and reaches at most 66 images/s, and 16 v5e reach 1,257; with 24 pictures a v5e needs
13.3 GiB and reaches 37. With 128 pictures a v5p needs 63 GiB, which also fits a chip of 80 GB, and
reaches 113. The default batch of 32 is more than one v5e holds.
"""

from vaejax.config import ladder_config


def get_config():
    config = ladder_config()
    config.data.source = "folder"
    config.data.image_size = (256, 256)
    config.model.patch = 2
    # At 128, 64, 32, 16, 8, 4, 2 and 1 px.
    config.model.widths = (64, 128, 128, 256, 512, 512, 512, 512)
    config.model.blocks = (16, 14, 14, 10, 6, 4, 0, 2)
    config.model.dtype = "bfloat16"
    config.model.hidden = (64, 64, 64, 128, 128, 128, 128, 128)
    config.model.latent = 32
    config.model.remat = True
    config.optimizer.learning_rate = 5e-4
    config.train.steps = 800_000
    config.train.eval_every = 10_000
    config.train.save_every = 1_000
    config.eval.batch_size = 25
    config.eval.grid = 4
    return config
