"""The Frey faces, 28 x 20 pixels, grey, with a ladder: --config.data.path=FILE.npz.

It trains for 25 minutes on two CPU cores. All settings were chosen on the validation faces.
The TPU compiler's estimates (libtpu 0.0.42; nothing was run): with 32 pictures a v5e needs 0.3 GiB
of its 16 and reaches at most 71,995 images/s; a batch of all 1,565 pictures needs 6 GiB.
"""

from vaejax.config import ladder_config


def get_config():
    config = ladder_config()
    config.data.source = "array"
    config.data.path = "data/freyfaces.npz"
    config.data.image_size = (28, 20)
    config.data.channels = 1
    # The split of the literature: 1565 / 200 / 200 at random.
    config.data.holdout = (200, 200)
    config.data.flip = False
    config.model.patch = 2
    config.model.widths = (64, 128)
    config.model.blocks = (3, 3)
    config.model.latent = 8
    # With half the dropout and little weight decay, the model overfitted earlier.
    config.model.dropout = 0.2
    # On CPUs a loop over the blocks is slower than the same blocks unrolled.
    config.model.scan = False
    config.likelihood.components = 5
    config.objective.warmup_steps = 0
    config.objective.balance = False
    config.optimizer.learning_rate = 5e-3
    config.optimizer.final_fraction = 0.02
    config.optimizer.ema_decay = 0.999
    config.optimizer.weight_decay = 0.1
    config.train.steps = 6_000
    config.train.eval_every = 500
    config.train.save_every = 500
    config.eval.batch_size = 200
    return config
