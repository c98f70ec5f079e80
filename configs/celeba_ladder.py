"""CelebA at 64 px with a ladder of 62 groups and 26 M parameters: --config.data.path=DIR.

The compact class of Efficient-VDVAE: few channels at high resolutions, many at low ones. A position
of its finest level is a square of 2 x 2 pixels, so that its channels fill the 128 lanes of a TPU.
On one H200 (2026-11-26) a batch of 32 reaches 453 images/s and needs 1.9 GiB, a batch of 128
reaches 928 and needs 5.8 GiB. On other accelerators, estimate first what a device can hold:
python -m vaejax.aot --config=configs/celeba_ladder.py --topology=v5e:1x1
The TPU compiler's estimates (libtpu 0.0.42; nothing was run): with 32 pictures a v5e needs 3.1 GiB
of its 16 and reaches at most 1,021 images/s, and 16 v5e reach 15,162; with 128 pictures a v5e needs
9.0 GiB and reaches 755. With 768 pictures a v5p needs 53 GiB, which also fits a chip of 80 GB, and
reaches 1,008.
"""

from vaejax.config import ladder_config


def get_config():
    config = ladder_config()
    config.data.source = "celeba"
    config.data.path = "data/celeba"
    config.model.patch = 2
    # At 32, 16, 8, 4, 2 and 1 px.
    config.model.widths = (128, 128, 128, 256, 512, 512)
    config.model.blocks = (30, 16, 10, 4, 0, 2)
    config.model.dtype = "bfloat16"
    config.model.hidden = (64, 64, 64, 64, 128, 128)
    config.model.latent = 32
    config.model.remat = True
    # In bfloat16, 2e-3 diverged within 200 updates on an H200, this one not in 2,600.
    config.optimizer.learning_rate = 6e-4
    config.train.steps = 400_000
    config.train.eval_every = 5_000
    config.train.save_every = 1_000
    return config
