"""The settings of the decoder's finish: adversarial training that sharpens its pictures."""

from dataclasses import dataclass

from vaejax.config.options import option
from vaejax.config.priors import FITTED_PRIORS


@dataclass(frozen=True)
class FinishConfig:
    """Trains the decoder on, against a discriminator; encoder and prior stay as they are."""

    # Updates; 0: the decoder stays as the likelihood has trained it.
    steps: int = option(0, low=0, may_change=True)
    # The prior whose samples the decoder learns to decode well, and from which new faces are drawn
    # afterwards: `model`, or one that is fitted to the codes.
    prior: str = option("mixture", choices=("model", *FITTED_PRIORS), may_change=True)
    # Pictures of one update. As many are decoded from samples of the prior.
    batch_size: int = option(32, low=1, may_change=True)
    # Learning rate of the decoder.
    decoder_rate: float = option(3e-4, low=1e-8, high=1, may_change=True)
    # Learning rate of the discriminator.
    discriminator_rate: float = option(6e-4, low=1e-8, high=1, may_change=True)
    # Channels of the discriminator, finest first; its first level merges 2 x 2 pixels, and each
    # further one halves height and width.
    widths: tuple[int, ...] = option((32, 64, 128, 128), low=1, may_change=True)
    # Weight of the adversarial loss beside the mean absolute error of the pixels.
    adversarial: float = option(0.1, low=0, may_change=True)
    # Weight of the distance between the discriminator's features of pictures and reconstructions.
    features: float = option(1.0, low=0, may_change=True)
    # Weight of the gradient penalty R1 of the discriminator.
    penalty: float = option(1.0, low=0, may_change=True)
    # The penalty is computed in every so many updates, with as many times its weight.
    penalty_every: int = option(16, low=1, may_change=True)
    # Decay of the exponential moving average of the decoder's parameters.
    ema_decay: float = option(0.999, low=0, high=0.999999, may_change=True)
    # Validations, each of which saves a checkpoint.
    validations: int = option(8, low=1, may_change=True)
