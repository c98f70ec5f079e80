"""Faces at 256 px with 103 M parameters, for accelerators: --config.data.path=DIR.

It needs a folder or zip of ten thousand pictures or more, such as FFHQ. Estimate the cost first:
python -m vaejax.aot --config=configs/large256.py --topology=v5e:4x4
"""

from vaejax.config import default_config


def get_config():
    config = default_config()
    config.data.source = "folder"
    config.data.image_size = (256, 256)
    # A TPU's matrix unit is 128 wide: narrower levels would leave part of it idle.
    config.model.widths = (128, 128, 256, 512, 512)
    config.model.blocks = (1, 2, 2, 4, 4)
    config.model.latent_size = 512
    config.model.dtype = "bfloat16"
    config.prior.layers = 8
    config.prior.width = 512
    config.train.batch_size = 256
    config.train.steps = 100_000
    config.train.eval_every = 5_000
    config.train.save_every = 1_000
    return config
