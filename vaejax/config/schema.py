"""The schema of a run: every setting, its default, its type and its limits.

A config file builds on `default_config` and says only what differs; `settings.resolve` checks
the result and makes the frozen `Config` that the rest of the package sees.
"""

from dataclasses import dataclass, field

from vaejax.config.likelihoods import LikelihoodConfig, LogisticConfig
from vaejax.config.models import ConvConfig, ModelConfig
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
    """Where the pictures come from and what is made of them."""

    # synthetic | celeba | folder | array | tfds:NAME
    source: str = option("synthetic")
    # celeba: its directory; folder: a directory or zip of pictures; array: an .npz or .npy
    # file; tfds: the data_dir.
    path: str = option("", of_machine=True)
    # Only tfds: where files downloaded by hand lie, for `python -m vaejax.prepare`.
    manual_dir: str = option("", of_machine=True)
    # Height, width.
    image_size: tuple[int, int] = option((64, 64), low=16, high=1024)
    channels: int = option(3, choices=(1, 3))
    # A preset of data/crops.py. auto: nvae148 for CelebA, center for folders and other tfds
    # sets, none for arrays and procedural faces.
    crop: str = option("auto", choices=CROPS)
    # Valid and test pictures of a source without official splits (of a folder: without folders
    # called train, val, test): below 1 a share of the
    # pictures, from 1 on a number of pictures.
    holdout: tuple[float, float] = option((0.1, 0.0), low=0)
    split_seed: int = option(0, low=0)
    # Procedural faces to train, validate and test on.
    synthetic_counts: tuple[int, int, int] = option((20_000, 2_000, 2_000), low=0)
    # Mirror training pictures at random.
    flip: bool = option(True)
    # Larger pictures are set aside, unread.
    max_pixels: int = option(100_000_000, low=1)
    # Empty: $XDG_CACHE_HOME/vaejax, or ~/.cache/vaejax.
    cache_dir: str = option("", of_machine=True)
    # Whether the training pictures lie in each device's memory, so that steps wait for no bus.
    # auto: where they take less than a quarter of it.
    on_device: str = option("auto", choices=("auto", "always", "never"), may_change=True)
    # 0: one for each core.
    decode_threads: int = option(0, low=0, of_machine=True)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of a picture."""
        return (*self.image_size, self.channels)


@dataclass(frozen=True)
class ObjectiveConfig:
    """The evidence lower bound and what is done to it in training."""

    beta: float = option(1.0, low=0)
    # Steps over which beta grows linearly from 0.
    warmup_steps: int = option(0, low=0)
    # While beta grows, weigh each group's KL by its share, so that none is given up early.
    balance: bool = option(False)
    # Nats per latent dimension below which the KL term is not pressed further.
    free_bits: float = option(0.0, low=0)


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW or Adamax under warm-up and cosine decay."""

    name: str = option("adamw", choices=("adamw", "adamax"))
    learning_rate: float = option(1e-3, low=1e-8, high=1)
    # Of the peak, reached at the last step.
    final_fraction: float = option(0.02, low=0, high=1)
    warmup_steps: int = option(200, low=0)
    b1: float = option(0.9, low=0, high=0.9999)
    b2: float = option(0.99, low=0, high=0.99999)
    weight_decay: float = option(1e-4, low=0)
    # Above which a gradient of the loss (in nats per dimension) is clipped; 0: never.
    clip_norm: float = option(1.0, low=0)
    # Times the run's own typical norm above which it fades; 0: never.
    guard: float = option(0.0, low=0)
    ema_decay: float = option(0.999, low=0, high=0.999999)


@dataclass(frozen=True)
class TrainConfig:
    """The loop."""

    steps: int = option(20_000, low=1, may_change=True)
    # Over all devices and accumulated parts.
    batch_size: int = option(64, low=1)
    # Equal parts of the batch whose gradients are added up, one after the other. `free_bits` and
    # `balance` then look at the KL of each part.
    accumulate: int = option(1, low=1)
    steps_per_dispatch: int = option(1, low=1)
    # Devices that share one copy of parameters, average and moments; 0: as few as have room.
    fsdp: int = option(0, low=0, may_change=True)
    seed: int = option(0, low=0, high=2**32 - 1)
    log_every: int = option(50, low=1, may_change=True)
    eval_every: int = option(1_000, low=1, may_change=True)
    save_every: int = option(1_000, low=1, may_change=True)
    # Newest checkpoints kept, beside the best.
    keep: int = option(2, low=1, may_change=True)
    # Updates skipped in a row, counted at each log, for a number that is not finite, before the
    # run rolls back.
    max_skipped: int = option(10, low=1)
    # Stop with an error at the third rollback; each one multiplies the learning rate by this.
    rollback_factor: float = option(0.3, low=1e-3, high=1)
    # Updates without trouble after which one rollback is forgotten, and its factor taken back.
    rollback_memory: int = option(10_000, low=1)
    # Seconds in which nothing moves after which the process ends; 0: never.
    hang_timeout: float = option(1_800.0, low=0, may_change=True)


@dataclass(frozen=True)
class EvalConfig:
    """Validation while training, and `python -m vaejax.evaluate`."""

    batch_size: int = option(100, low=1, may_change=True)
    # Pictures evaluated while training, chosen at random and always the same; 0: all.
    pictures: int = option(0, low=0)
    # Of the importance-weighted bound, only in `evaluate`.
    importance_samples: int = option(64, low=1, may_change=True)
    grid: int = option(8, low=2, high=32, may_change=True)


@dataclass(frozen=True)
class Config:
    """A whole run. What has a name is one of several classes, each with settings of its own."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ConvConfig)
    likelihood: LikelihoodConfig = field(default_factory=LogisticConfig)
    prior: PriorConfig = field(default_factory=CouplingFlowConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
