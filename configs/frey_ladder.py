"""The Frey faces, 28 x 20 grey, with a ladder: --config.data.path=FILE.npz.

25 minutes on two CPU cores. Every choice was made on the validation faces.
A TPU's compiler says (libtpu 0.0.42; estimates, nothing was run): with 32 pictures a v5e needs
0.3 GiB of its 16 and makes 71,995 images/s at most; all 1,565 at once need 6 GiB.
"""

from vaejax.config import ladder_config


def get_config():
    config = ladder_config()
    config.data.source = "array"
    config.data.path = "data/freyfaces.npz"
    config.data.image_size = (28, 20)
    config.data.channels = 1
    # The split that the literature uses: 1565 / 200 / 200 at random.
    config.data.holdout = (200, 200)
    config.data.flip = False
    config.model.patch = 2
    config.model.widths = (64, 128)
    config.model.blocks = (3, 3)
    config.model.latent = 8
    # With half the dropout and little decay, validation turned earlier.
    config.model.dropout = 0.2
    # On CPUs a loop is slower than what it repeats, written out.
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
