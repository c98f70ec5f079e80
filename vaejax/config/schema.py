"""The schema of a run: the type, the default and the limits of every setting.

A config file builds on `default_config` and lists only what differs; `settings.resolve` checks
the result and returns the frozen `Config` that the rest of the package uses.
"""

from dataclasses import dataclass, field

from vaejax.config.finish import FinishConfig
from vaejax.config.flow import FlowConfig
from vaejax.config.likelihoods import LikelihoodConfig, LogisticConfig
from vaejax.config.models import AttributesConfig, ConvConfig, ModelConfig
from vaejax.config.options import option
from vaejax.config.priors import CouplingFlowConfig, PriorConfig

CROPS = (
    "auto",
    "none",
    "center",
    "nvae148",
    "wae140",
    "2svae128",
    "ddim128",
    "ptvae148",
    "wae_resizecrop",
    "stretch",
)


@dataclass(frozen=True)
class DataConfig:
    """Where the pictures come from and how they are preprocessed."""

    # synthetic | celeba | folder | array | tfds:NAME
    source: str = option("synthetic")
    # celeba: its directory; folder: a directory or zip of pictures; array: an .npz or .npy
    # file; tfds: the data_dir.
    path: str = option("", of_machine=True)
    # Only tfds: directory of manually downloaded files, for `python -m vaejax.prepare`.
    manual_dir: str = option("", of_machine=True)
    # Height and width in pixels.
    image_size: tuple[int, int] = option((64, 64), low=16, high=1024)
    channels: int = option(3, choices=(1, 3))
    # A preset of `vaejax.data.pictures.crops`. auto: nvae148 for CelebA, center for folders and
    # other tfds sets, none for arrays and procedural faces.
    crop: str = option("auto", choices=CROPS)
    # Validation and test pictures of a source without official splits (of a folder: without
    # folders called train, val, test): below 1 a share of the pictures, from 1 on a number.
    holdout: tuple[float, float] = option((0.1, 0.0), low=0)
    split_seed: int = option(0, low=0)
    # Numbers of procedural faces for training, validation and test.
    synthetic_counts: tuple[int, int, int] = option((20_000, 2_000, 2_000), low=0)
    # Mirror half of the training pictures at random, left to right.
    flip: bool = option(True)
    # Pictures with more pixels are skipped without being decoded.
    max_pixels: int = option(100_000_000, low=1)
    # Directory of decoded pictures; empty: $XDG_CACHE_HOME/vaejax, or ~/.cache/vaejax.
    cache_dir: str = option("", of_machine=True)
    # Whether every device holds all training pictures in its memory, so that a step copies none
    # from the host. auto: if they take at most a quarter of it.
    on_device: str = option("auto", choices=("auto", "always", "never"), may_change=True)
    # Threads that decode pictures; 0: one for each core.
    decode_threads: int = option(0, low=0, of_machine=True)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of a picture."""
        return (*self.image_size, self.channels)


@dataclass(frozen=True)
class ObjectiveConfig:
    """The evidence lower bound and how training modifies it."""

    # Weight of the KL term.
    beta: float = option(1.0, low=0)
    # Steps over which the weight of the KL term grows linearly from 0 to beta.
    warmup_steps: int = option(0, low=0)
    # During this warm-up, weight each group's KL in proportion to its KL per dimension, so that no
    # group is given up early.
    balance: bool = option(False)
    # Free nats per latent dimension: KL below this is not penalised. In a map of latents they are
    # granted to each channel as a whole, in a ladder to each group.
    free_bits: float = option(0.0, low=0)
    # Noise that training adds to z before it is decoded, in standard deviations of the codes (per
    # channel of a map): of each picture a share of this, uniform between 0 and 1. Not for ladders.
    latent_noise: float = option(0.0, low=0, high=10)
    # Probability with which training shows the encoder a square of 8 x 8 pixels as grey.
    mask: float = option(0.0, low=0, high=0.95)


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW or Adamax, with linear warm-up and cosine decay of the learning rate."""

    name: str = option("adamw", choices=("adamw", "adamax"))
    # The peak, reached when the warm-up ends.
    learning_rate: float = option(1e-3, low=1e-8, high=1)
    # Learning rate at the last step, as a fraction of the peak.
    final_fraction: float = option(0.02, low=0, high=1)
    warmup_steps: int = option(200, low=0)
    b1: float = option(0.9, low=0, high=0.9999)
    b2: float = option(0.99, low=0, high=0.99999)
    weight_decay: float = option(1e-4, low=0)
    # Largest norm of a gradient of the loss (in nats per dimension); 0: no clipping.
    clip_norm: float = option(1.0, low=0)
    # A gradient whose norm exceeds this many times the running geometric mean of the norms is
    # scaled down, the more the larger it is; 0: never.
    guard: float = option(0.0, low=0)
    # Decay of the exponential moving average of the parameters.
    ema_decay: float = option(0.999, low=0, high=0.999999)


@dataclass(frozen=True)
class TrainConfig:
    """The training loop: its length, its batches, its checkpoints and its recovery."""

    steps: int = option(20_000, low=1, may_change=True)
    # Pictures of one update, over all devices and accumulated parts.
    batch_size: int = option(64, low=1)
    # Equal parts of the batch, processed one after the other, whose gradients are averaged.
    # `free_bits` and `balance` then see the KL of each part.
    accumulate: int = option(1, low=1)
    steps_per_dispatch: int = option(1, low=1)
    # Devices that share one copy of the parameters, their average and their moments; 0: the
    # smallest number with which these fit.
    fsdp: int = option(0, low=0, may_change=True)
    seed: int = option(0, low=0, high=2**32 - 1)
    log_every: int = option(50, low=1, may_change=True)
    eval_every: int = option(1_000, low=1, may_change=True)
    save_every: int = option(1_000, low=1, may_change=True)
    # Number of newest checkpoints that are kept besides the best one.
    keep: int = option(2, low=1, may_change=True)
    # Consecutive updates skipped because loss or gradient was not finite, checked at each log, at
    # which the run rolls back.
    max_skipped: int = option(10, low=1)
    # Each rollback multiplies the learning rate by this; a third one ends the run with an error.
    rollback_factor: float = option(0.3, low=1e-3, high=1)
    # Updates without trouble after which one rollback is forgotten and its factor undone.
    rollback_memory: int = option(10_000, low=1)
    # Seconds without progress after which the process ends; 0: never.
    hang_timeout: float = option(1_800.0, low=0, may_change=True)


@dataclass(frozen=True)
class EvalConfig:
    """Validation during training, and evaluation by `python -m vaejax.evaluate`."""

    batch_size: int = option(100, low=1, may_change=True)
    # Validation pictures evaluated during training, at random but always the same; 0: all.
    pictures: int = option(0, low=0)
    # Samples of the importance-weighted bound, computed only by `python -m vaejax.evaluate`.
    importance_samples: int = option(64, low=1, may_change=True)
    # Metrics of generated pictures that validations measure as well: ms_ssim, perceptual,
    # thumbnails, spectrum, frechet, kid, manifold, novelty, faces.
    metrics: tuple[str, ...] = option((), may_change=True)
    # They are measured at every so many validations, and at the last one.
    metrics_every: int = option(1, low=1, may_change=True)
    # Samples, and at most as many reconstructions, that they measure.
    samples: int = option(500, low=2, may_change=True)
    # Their feature space.
    features: str = option("resnet", choices=("resnet", "vgg", "inception"), may_change=True)
    # File of the network of `features`: FID's Inception, or torchvision's VGG16.
    weights: str = option("", of_machine=True)
    # The metric of a validation that decides the best checkpoint.
    best_by: str = option("elbo_bits_per_dim")
    # Columns of the grids of pictures.
    grid: int = option(8, low=2, high=32, may_change=True)


@dataclass(frozen=True)
class Config:
    """All settings of a run.

    `model`, `likelihood` and `prior` are each one of several classes with settings of their own.
    """

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ConvConfig)
    likelihood: LikelihoodConfig = field(default_factory=LogisticConfig)
    prior: PriorConfig = field(default_factory=CouplingFlowConfig)
    flow: FlowConfig = field(default_factory=FlowConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    finish: FinishConfig = field(default_factory=FinishConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)

    @property
    def is_vae(self) -> bool:
        """Whether the run trains a VAE, and not a network of attributes."""
        return not isinstance(self.model, AttributesConfig)

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """The shape of a picture's latents: (dimensions,), or (rows, columns, channels) of a map.

        Codes are flat, a map's row by row. () for a ladder, whose latents are several arrays.
        """
        return self.model.latent_shape(self.data.image_size)
