"""Faces at 256 px with a ladder of 66 groups: --config.data.path=DIR, a folder or zip of FFHQ.

A position of its finest level is a square of 2 x 2 pixels, so each level has half the side that it
would have with patch = 1, and a quarter of the cost and of the latents.

A TPU's compiler says (libtpu 0.0.42; estimates, nothing was run): with 8 pictures a v5e needs
5.4 GiB of its 16 and makes 66 images/s at most, 16 v5e 1,257; with 24, 13.3 GiB and 37.
With 128 a v5p needs 63 GiB, so that they fit a chip of 80 GB, and makes 113. The batch of 32 is
more than one v5e holds.
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
