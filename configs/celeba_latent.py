"""CelebA at 64 px with a map of latents, a transformer as its prior, and a sharpened decoder.

--config.data.path=DIR. Three stages for one accelerator, not trained yet: the autoencoder (22 M
parameters, 42 GFLOP for a picture and update), the flow prior on its codes (32 M, 8 GFLOP), and the
finish of its decoder (15 M with the discriminator, 77 GFLOP). All updates together are 97 PFLOP,
eleven minutes at 15% of the peak of an H100; the samples for the finish are another 5 in float32.
For hours: --config.train.steps=50_000 --config.flow.steps=100_000.
"""

from vaejax.config import default_config


def get_config():
    config = default_config()
    config.data.source = "celeba"
    config.data.path = "data/celeba"
    # A map of 16 x 16 x 8. Widths are multiples of the 128 lanes of a TPU.
    config.model.name = "spatial"
    config.model.patch = 2
    config.model.widths = (256, 512)
    config.model.blocks = (1, 2)
    config.model.latent = 8
    config.model.dtype = "bfloat16"
    config.prior.name = "standard_normal"
    config.prior.fitted = ("flow_matching",)
    # Codes that are easier for the prior.
    config.objective.latent_noise = 0.3
    config.objective.mask = 0.25
    config.optimizer.learning_rate = 5e-4
    config.optimizer.warmup_steps = 500
    config.train.batch_size = 256
    config.train.steps = 6_000
    config.train.eval_every = 1_000
    config.train.save_every = 1_000
    config.eval.pictures = 2_000
    # Class of DiT-S, with 64 tokens, each a square of 2 x 2 positions of the map.
    config.flow.patch = 2
    config.flow.width = 384
    config.flow.blocks = 12
    config.flow.head_size = 128
    config.flow.dtype = "bfloat16"
    config.flow.batch_size = 256
    config.flow.learning_rate = 5e-4
    config.flow.steps = 10_000
    config.finish.prior = "flow_matching"
    config.finish.steps = 2_000
    config.finish.batch_size = 64
    config.finish.widths = (64, 128, 256, 256)
    config.finish.validations = 4
    return config
