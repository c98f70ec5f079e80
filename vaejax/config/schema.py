"""The schema of a run: every setting, its default, its type and its limits.

A config file builds on `default_config` and says only what differs; `settings.resolve` checks
the result and makes the frozen `Config` that the rest of the package sees.
"""

import dataclasses
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ml_collections

from vaejax.errors import UserError
from vaejax.files.paths import check_no_address

RUN_MARK = ".vaejax"
"""The file by which a work directory is known from its first moment."""
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
FITTED_PRIORS = ("gaussian", "mixture", "flow_matching")


def _option(
    default: Any,
    *,
    choices: tuple = (),
    low: float | int | None = None,
    high: float | int | None = None,
    may_change: bool = False,
    of_machine: bool = False,
) -> Any:
    """A field of the schema.

    Args:
      default: its value where nothing is said.
      choices: all values that it can have; empty where its type decides.
      low, high: limits of every number in it.
      may_change: whether a run may go on with another value; of other fields that would make
        another run.
      of_machine: whether the processes of a run may differ in it; such a field may change too.
    """
    return field(
        default=default,
        metadata={
            "choices": choices,
            "low": low,
            "high": high,
            "may_change": may_change or of_machine,
            "of_machine": of_machine,
        },
    )


@dataclass(frozen=True)
class DataConfig:
    """Where the pictures come from and what is made of them."""

    # synthetic | celeba | folder | array | tfds:NAME
    source: str = _option("synthetic")
    # celeba: its directory; folder: a directory or zip of pictures; array: an .npz or .npy
    # file; tfds: the data_dir.
    path: str = _option("", of_machine=True)
    # Only tfds: where files downloaded by hand lie, for `python -m vaejax.prepare`.
    manual_dir: str = _option("", of_machine=True)
    # Height, width.
    image_size: tuple[int, int] = _option((64, 64), low=16, high=1024)
    channels: int = _option(3, choices=(1, 3))
    # A preset of data/crops.py. auto: nvae148 for CelebA, center for folders and other tfds
    # sets, none for arrays and procedural faces.
    crop: str = _option("auto", choices=CROPS)
    # Valid and test pictures of a source without official splits (of a folder: without folders
    # called train, val, test): below 1 a share of the
    # pictures, from 1 on a number of pictures.
    holdout: tuple[float, float] = _option((0.1, 0.0), low=0)
    split_seed: int = _option(0, low=0)
    # Procedural faces to train, validate and test on.
    synthetic_counts: tuple[int, int, int] = _option((20_000, 2_000, 2_000), low=0)
    # Mirror training pictures at random.
    flip: bool = _option(True)
    # Larger pictures are set aside, unread.
    max_pixels: int = _option(100_000_000, low=1)
    # Empty: $XDG_CACHE_HOME/vaejax, or ~/.cache/vaejax.
    cache_dir: str = _option("", of_machine=True)
    # Whether the training pictures lie in each device's memory, so that steps wait for no bus.
    # auto: where they take less than a quarter of it.
    on_device: str = _option("auto", choices=("auto", "always", "never"), may_change=True)
    # 0: one for each core.
    decode_threads: int = _option(0, low=0, of_machine=True)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of a picture."""
        return (*self.image_size, self.channels)


@dataclass(frozen=True)
class ModelConfig:
    """The networks."""

    # conv: one flat z; ladder: latents in groups at every resolution.
    name: str = _option("conv", choices=("conv", "ladder"))
    # Dimensions of z; only conv.
    latent_size: int = _option(128, low=1)
    # Channels at each resolution, finest first; each level halves height and width.
    widths: tuple[int, ...] = _option((48, 96, 192), low=1)
    # Residual blocks at each resolution, finest first; a ladder has a group of latents for each.
    blocks: tuple[int, ...] = _option((1, 1, 1), low=0)
    # Side of the square patch that the first convolution sees as one position.
    patch: int = _option(4, choices=(1, 2, 4))
    # Of activations; parameters, KL and likelihood sums are always float32.
    dtype: str = _option("float32", choices=("float32", "bfloat16"))

    @property
    def has_groups(self) -> bool:
        """Whether latents are groups at every resolution, whose priors are trained with them.

        Else z is one vector, to whose codes other priors can be fitted.
        """
        return self.name == "ladder"


@dataclass(frozen=True)
class LadderConfig:
    """What only a ladder has."""

    # Channels of a group of latents.
    latent: int = _option(16, low=1)
    # Channels inside the residual branches of each level, finest first; (): half the widths.
    hidden: tuple[int, ...] = _option((), low=1)
    # What makes a standard deviation of a network's number.
    spread: str = _option("softplus", choices=("softplus", "exp"))
    # What a decoder block sees of the encoder: the block at its place, or its level's last.
    skips: str = _option("block", choices=("block", "level"))
    # Share of the channels inside a residual branch that are left out in training.
    dropout: float = _option(0.0, low=0, high=0.9)
    # Equal blocks as a loop, which compiles faster; the numbers are the same.
    scan: bool = _option(True, may_change=True)
    # Activations inside a block are computed again for its gradient, which saves memory.
    remat: bool = _option(False, may_change=True)


@dataclass(frozen=True)
class LikelihoodConfig:
    """p(x given z)."""

    name: str = _option("logistic", choices=("logistic", "gaussian", "bernoulli", "mixture"))
    # shared: one per channel; position: one per pixel and channel, the same for all pictures;
    # predicted: by the decoder, for each picture; fixed: `fixed_scale`. Bernoulli has none, and
    # each logistic of a mixture its own.
    scale: str = _option("position", choices=("shared", "position", "predicted", "fixed"))
    # The fixed scale, in grey levels of 255: a Gaussian's standard deviation, which is 1.8 times
    # as large as this for a logistic.
    fixed_scale: float = _option(19.0, low=0.1, high=255)
    # Logistics in the mixture.
    components: int = _option(10, low=1)
    # Of each value that count, the highest; only logistic and mixture.
    bits: int = _option(8, choices=(5, 8))


@dataclass(frozen=True)
class PriorConfig:
    """p(z)."""

    name: str = _option("coupling_flow", choices=("coupling_flow", "standard_normal"))
    layers: int = _option(8, low=1)
    width: int = _option(128, low=1)
    # Priors fitted to the training codes when training ends.
    fitted: tuple[str, ...] = _option(("gaussian",), choices=FITTED_PRIORS, may_change=True)


@dataclass(frozen=True)
class ObjectiveConfig:
    """The evidence lower bound and what is done to it in training."""

    beta: float = _option(1.0, low=0)
    # Steps over which beta grows linearly from 0.
    warmup_steps: int = _option(0, low=0)
    # While beta grows, weigh each group's KL by its share, so that none is given up early.
    balance: bool = _option(False)
    # Nats per latent dimension below which the KL term is not pressed further.
    free_bits: float = _option(0.0, low=0)


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW or Adamax under warm-up and cosine decay."""

    name: str = _option("adamw", choices=("adamw", "adamax"))
    learning_rate: float = _option(1e-3, low=1e-8, high=1)
    # Of the peak, reached at the last step.
    final_fraction: float = _option(0.02, low=0, high=1)
    warmup_steps: int = _option(200, low=0)
    b1: float = _option(0.9, low=0, high=0.9999)
    b2: float = _option(0.99, low=0, high=0.99999)
    weight_decay: float = _option(1e-4, low=0)
    # Above which a gradient of the loss (in nats per dimension) is shortened; 0: never.
    clip_norm: float = _option(1.0, low=0)
    # Times the run's own typical norm above which it fades; 0: never.
    guard: float = _option(0.0, low=0)
    ema_decay: float = _option(0.999, low=0, high=0.999999)


@dataclass(frozen=True)
class TrainConfig:
    """The loop."""

    steps: int = _option(20_000, low=1, may_change=True)
    # Over all devices and accumulated parts.
    batch_size: int = _option(64, low=1)
    # Equal parts of the batch whose gradients are added up, one after the other. `free_bits` and
    # `balance` then look at the KL of each part.
    accumulate: int = _option(1, low=1)
    steps_per_dispatch: int = _option(1, low=1)
    # Devices that share one copy of parameters, average and moments; 0: as few as have room.
    fsdp: int = _option(0, low=0, may_change=True)
    seed: int = _option(0, low=0, high=2**32 - 1)
    log_every: int = _option(50, low=1, may_change=True)
    eval_every: int = _option(1_000, low=1, may_change=True)
    save_every: int = _option(1_000, low=1, may_change=True)
    # Newest checkpoints kept, beside the best.
    keep: int = _option(2, low=1, may_change=True)
    # Updates skipped in a row, counted at each log, for a number that is not finite, before the
    # run rolls back.
    max_skipped: int = _option(10, low=1)
    # Stop with an error at the third rollback; each one multiplies the learning rate by this.
    rollback_factor: float = _option(0.3, low=1e-3, high=1)
    # Updates without trouble after which one rollback is forgotten, and its factor taken back.
    rollback_memory: int = _option(10_000, low=1)
    # Seconds in which nothing moves after which the process ends; 0: never.
    hang_timeout: float = _option(1_800.0, low=0, may_change=True)


@dataclass(frozen=True)
class EvalConfig:
    """Validation while training, and `python -m vaejax.evaluate`."""

    batch_size: int = _option(100, low=1, may_change=True)
    # Pictures evaluated while training, chosen at random and always the same; 0: all.
    pictures: int = _option(0, low=0)
    # Of the importance-weighted bound, only in `evaluate`.
    importance_samples: int = _option(64, low=1, may_change=True)
    grid: int = _option(8, low=2, high=32, may_change=True)


@dataclass(frozen=True)
class Config:
    """A whole run."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    ladder: LadderConfig = field(default_factory=LadderConfig)
    likelihood: LikelihoodConfig = field(default_factory=LikelihoodConfig)
    prior: PriorConfig = field(default_factory=PriorConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)


def default_config() -> ml_collections.ConfigDict:
    """The defaults, for a config file to change.

    Neither locked nor type-safe: `settings.resolve` finds the same mistakes and names them, and
    the nearest right key, in words.
    """
    return ml_collections.ConfigDict(dataclasses.asdict(Config()), type_safe=False)


def ladder_config() -> ml_collections.ConfigDict:
    """The defaults of a ladder, for a config file to change."""
    config = default_config()
    config.model.name = "ladder"
    config.model.patch = 1
    config.likelihood.name = "mixture"
    # Of any other likelihood: nothing of a ladder belongs to a position.
    config.likelihood.scale = "predicted"
    # The groups' priors are trained with them.
    config.prior.fitted = ()
    config.objective.balance = True
    config.objective.warmup_steps = 2_000
    config.optimizer.weight_decay = 0.0
    config.optimizer.warmup_steps = 100
    config.optimizer.final_fraction = 0.1
    # Gradients grow thirtyfold while a mixture learns; a fixed limit would shorten nearly all.
    config.optimizer.clip_norm = 0.0
    config.optimizer.guard = 5.0
    config.optimizer.ema_decay = 0.9999
    config.train.batch_size = 32
    config.eval.importance_samples = 16
    return config


def user_cache() -> Path:
    """Where vaejax keeps what it can make again: $XDG_CACHE_HOME/vaejax or ~/.cache/vaejax.

    Raises:
      UserError: there is no home directory.
    """
    given = os.environ.get("XDG_CACHE_HOME", "")
    check_no_address("XDG_CACHE_HOME", given)
    try:
        # A relative one is ignored, as the XDG base directory specification has it.
        root = given if os.path.isabs(given) else Path.home() / ".cache"
    except RuntimeError as error:
        raise UserError(
            "there is no home directory for the cache: set --config.data.cache_dir or"
            " XDG_CACHE_HOME to a directory that can be written"
        ) from error
    return Path(root) / "vaejax"
