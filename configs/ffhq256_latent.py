"""Faces at 256 px with a map of latents and a transformer as its prior: --config.data.path=DIR.

DIR is a folder or zip of FFHQ. Three stages, sized for a slice of a TPU pod or one to two days of a
GPU, and not trained yet: the autoencoder (68 M parameters, 242 GFLOP for a picture and update), the
flow prior on its codes (148 M, 154 GFLOP), and the finish of its decoder (50 M with the
discriminator, 545 GFLOP). Estimate first what a device can hold:
python -m vaejax.aot --config=configs/ffhq256_latent.py --stage=flow --topology=v5e:1x1

The TPU compiler's estimates of the flow prior's stage (libtpu 0.0.42.1; nothing was run), with the
codes of 70,000 pictures: with 80 codes in a batch a v5e needs 12.1 GiB of its 16 and reaches at
most 716 codes/s, 56% of its peak; with 64 a v5p needs 10.7 GiB and reaches 1,986, 67% (of a program
that differed slightly: launch/README.md). Its batch of 256 is for four chips.
"""

from vaejax.config import default_config


def get_config():
    config = default_config()
    config.data.source = "folder"
    config.data.image_size = (256, 256)
    # A map of 16 x 16 x 16. Widths are multiples of the 128 lanes of a TPU: narrower levels would
    # be bound by memory.
    config.model.name = "spatial"
    config.model.patch = 4
    config.model.widths = (256, 512, 768)
    config.model.blocks = (1, 2, 2)
    config.model.latent = 16
    config.model.dtype = "bfloat16"
    config.prior.name = "standard_normal"
    config.prior.fitted = ("flow_matching",)
    # Codes that are easier for the prior.
    config.objective.latent_noise = 0.3
    config.objective.mask = 0.25
    config.optimizer.learning_rate = 3e-4
    config.optimizer.warmup_steps = 1_000
    config.optimizer.ema_decay = 0.9999
    config.train.batch_size = 256
    config.train.steps = 150_000
    config.train.eval_every = 5_000
    config.train.save_every = 1_000
    config.eval.pictures = 2_000
    config.eval.batch_size = 64
    config.eval.grid = 4
    # As large as DiT-B, with 256 tokens, one for each position of the map, but wider and with fewer
    # blocks, which a TPU's memory can feed: the operations of a block grow with the square of its
    # width, its traffic with the width. Heads fill the 128 lanes.
    config.flow.width = 1152
    config.flow.blocks = 6
    config.flow.head_size = 128
    config.flow.dtype = "bfloat16"
    config.flow.remat = True
    config.flow.batch_size = 256
    config.flow.learning_rate = 2e-4
    config.flow.ema_decay = 0.9999
    config.flow.steps = 400_000
    config.finish.prior = "flow_matching"
    config.finish.steps = 10_000
    config.finish.batch_size = 64
    config.finish.widths = (64, 128, 256, 512, 512)
    return config
