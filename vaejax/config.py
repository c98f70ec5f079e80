"""The schema of a run: every setting, its default, its type and its limits.

A config file builds on `default_config` and says only what differs. `resolve` checks the
result against the schema and returns a frozen `Config`, the form in which the rest of the
package sees it; `to_json` and `from_json` keep it beside a run.
"""

import dataclasses
import difflib
import json
import os
import typing
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ml_collections

from vaejax.errors import UserError

CELEBA_SOURCES = ("celeba", "tfds:celeb_a")
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


def _option(
    default: Any,
    *,
    choices: tuple = (),
    low: float | int | None = None,
    high: float | int | None = None,
) -> Any:
    """A field of the schema; every number in it must lie in [low, high]."""
    return field(default=default, metadata={"choices": choices, "low": low, "high": high})


@dataclass(frozen=True)
class DataConfig:
    """Where the pictures come from and what is made of them."""

    # synthetic | celeba | folder | array | tfds:NAME
    source: str = _option("synthetic")
    # celeba: its directory; folder: a directory or zip of pictures; array: an .npz or .npy
    # file; tfds: the data_dir.
    path: str = _option("")
    # Only tfds: where files downloaded by hand lie, for `python -m vaejax.prepare`.
    manual_dir: str = _option("")
    # Height, width.
    image_size: tuple[int, int] = _option((64, 64), low=16, high=512)
    channels: int = _option(3, choices=(1, 3))
    # A preset of data/crops.py. auto: nvae148 for CelebA, center for folders and other tfds
    # sets, none for arrays and procedural faces.
    crop: str = _option("auto", choices=CROPS)
    # Valid and test pictures of a source without official splits: below 1 a share of the
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
    cache_dir: str = _option("")
    # 0: one for each core.
    decode_threads: int = _option(0, low=0)


@dataclass(frozen=True)
class ModelConfig:
    """The convolutional VAE."""

    latent_size: int = _option(128, low=1)
    # Channels at each resolution, finest first; each level halves height and width.
    widths: tuple[int, ...] = _option((48, 96, 192), low=1)
    # Residual blocks at each resolution, finest first.
    blocks: tuple[int, ...] = _option((1, 1, 1), low=0)
    # Side of the square patch that the first convolution sees as one position.
    patch: int = _option(4, choices=(1, 2, 4))
    # Of activations; parameters, KL and likelihood sums are always float32.
    dtype: str = _option("float32", choices=("float32", "bfloat16"))


@dataclass(frozen=True)
class LikelihoodConfig:
    """p(x given z)."""

    name: str = _option("logistic", choices=("logistic", "gaussian", "bernoulli"))
    # shared: one per channel; position: one per pixel and channel, the same for all pictures;
    # predicted: by the decoder, for each picture; fixed: `fixed_scale`. Bernoulli has none.
    scale: str = _option("position", choices=("shared", "position", "predicted", "fixed"))
    # Standard deviation of the fixed scale, in grey levels of 255.
    fixed_scale: float = _option(19.0, low=0.1, high=255)


@dataclass(frozen=True)
class PriorConfig:
    """p(z)."""

    name: str = _option("coupling_flow", choices=("coupling_flow", "standard_normal"))
    layers: int = _option(8, low=1)
    width: int = _option(256, low=1)
    # Priors fitted to the training codes when training ends.
    fitted: tuple[str, ...] = _option(
        ("gaussian",), choices=("gaussian", "mixture", "flow_matching")
    )


@dataclass(frozen=True)
class ObjectiveConfig:
    """The evidence lower bound and what is done to it in training."""

    beta: float = _option(1.0, low=0)
    # Steps over which beta grows linearly from 0.
    warmup_steps: int = _option(0, low=0)
    # Nats per latent dimension below which the KL term is not pressed further.
    free_bits: float = _option(0.0, low=0)


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW under warm-up and cosine decay."""

    learning_rate: float = _option(1e-3, low=1e-8, high=1)
    # Of the peak, reached at the last step.
    final_fraction: float = _option(0.02, low=0, high=1)
    warmup_steps: int = _option(200, low=0)
    b1: float = _option(0.9, low=0, high=0.9999)
    b2: float = _option(0.99, low=0, high=0.99999)
    weight_decay: float = _option(1e-4, low=0)
    # Of the gradient of the loss in nats per dimension.
    clip_norm: float = _option(1.0, low=1e-8)
    ema_decay: float = _option(0.999, low=0, high=0.999999)


@dataclass(frozen=True)
class TrainConfig:
    """The loop."""

    steps: int = _option(20_000, low=1)
    # Over all devices and accumulated parts.
    batch_size: int = _option(64, low=1)
    # Equal parts of the batch whose gradients are added up, one after the other.
    accumulate: int = _option(1, low=1)
    steps_per_dispatch: int = _option(1, low=1)
    seed: int = _option(0, low=0)
    log_every: int = _option(50, low=1)
    eval_every: int = _option(1_000, low=1)
    save_every: int = _option(1_000, low=1)
    # Newest checkpoints kept, beside the best.
    keep: int = _option(2, low=1)
    # Updates skipped in a row for a number that is not finite before the run rolls back.
    max_skipped: int = _option(10, low=1)
    # Stop with an error at the third rollback; each one multiplies the learning rate by this.
    rollback_factor: float = _option(0.3, low=1e-3, high=1)


@dataclass(frozen=True)
class EvalConfig:
    """Validation while training, and `python -m vaejax.evaluate`."""

    batch_size: int = _option(100, low=1)
    # Pictures evaluated while training; 0: the whole split.
    pictures: int = _option(0, low=0)
    # Of the importance-weighted bound, only in `evaluate`.
    importance_samples: int = _option(64, low=1)
    grid: int = _option(8, low=2, high=32)


@dataclass(frozen=True)
class Config:
    """A whole run."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    likelihood: LikelihoodConfig = field(default_factory=LikelihoodConfig)
    prior: PriorConfig = field(default_factory=PriorConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)


# What a run may change when it goes on; anything else would make it another run.
CHANGEABLE = ("data.path", "data.manual_dir", "data.cache_dir", "data.decode_threads",
              "train.steps", "train.keep", "train.log_every", "train.eval_every",
              "train.save_every", "eval.batch_size", "eval.importance_samples",
              "eval.grid", "prior.fitted")  # fmt: skip


def default_config() -> ml_collections.ConfigDict:
    """The defaults as a locked `ConfigDict`, for a config file to change."""
    config = ml_collections.ConfigDict(dataclasses.asdict(Config()))
    return config.lock()


def resolve(values: ml_collections.ConfigDict | dict) -> Config:
    """Checks `values` against the schema.

    Args:
      values: nested mapping of settings; what is missing takes its default.

    Returns:
      The run's settings, with `data.crop` no longer `auto`.

    Raises:
      UserError: for an unknown key, a value of the wrong type, one outside its limits, or
        settings that do not go together. One line that names key, value and remedy.
    """
    if isinstance(values, ml_collections.ConfigDict):
        values = values.to_dict()
    sections = {}
    for name in values:
        if name not in {section.name for section in dataclasses.fields(Config)}:
            check_key(name)
    for section in dataclasses.fields(Config):
        sections[section.name] = _section(section.type, section.name, values.get(section.name, {}))
    config = _resolve_crop(Config(**sections))
    _check_together(config)
    return config


def check_key(name: str) -> None:
    """Raises UserError unless `name` is a `section.key` of the schema."""
    section, _, key = name.partition(".")
    sections = {f.name: f.type for f in dataclasses.fields(Config)}
    if section not in sections:
        raise UserError(_unknown(f"config.{name}", section, list(sections), "config."))
    known = [f.name for f in dataclasses.fields(sections[section])]
    if key not in known:
        raise UserError(_unknown(f"config.{name}", key, known, f"config.{section}."))


def cache_root() -> Path:
    """Where vaejax keeps what it can make again: $XDG_CACHE_HOME/vaejax or ~/.cache/vaejax."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vaejax"


def to_json(config: Config) -> str:
    """The settings as indented JSON, keys in the schema's order."""
    return json.dumps(dataclasses.asdict(config), indent=2) + "\n"


def from_json(text: str) -> Config:
    """The inverse of `to_json`; checks like `resolve`."""
    return resolve(json.loads(text))


def save_json(path: Path, config: Config) -> None:
    """Writes `to_json`, whole or not at all."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(to_json(config))
    os.replace(temporary, path)


def load_json(path: Path) -> Config:
    """Reads what `save_json` wrote.

    Raises:
      UserError: the file is missing, or no config of this version.
    """
    try:
        return from_json(path.read_text())
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}); name the work directory of a run"
        ) from error
    except ValueError as error:
        raise UserError(f"{path} is no JSON ({error}); restore it, or begin a new run") from error
    except UserError as error:
        raise UserError(f"{path} does not fit this version of vaejax: {error}") from error


def differences(old: Config, new: Config) -> list[str]:
    """Lines `key: old -> new` for the settings that make `new` another run than `old`."""
    before, after = dict(_leaves(old)), dict(_leaves(new))
    return [
        f"{key}: {before[key]!r} -> {after[key]!r}"
        for key in before
        if before[key] != after[key] and key not in CHANGEABLE
    ]


def _leaves(config: Config) -> Iterator[tuple[str, Any]]:
    for section in dataclasses.fields(config):
        for key, value in dataclasses.asdict(getattr(config, section.name)).items():
            yield f"{section.name}.{key}", value


def _section(schema: type, name: str, values: Any) -> Any:
    if not isinstance(values, dict):
        raise UserError(f"config.{name} is {values!r}; it must be a section of settings")
    fields = {f.name: f for f in dataclasses.fields(schema)}
    checked = {}
    for key, value in values.items():
        check_key(f"{name}.{key}")
        checked[key] = _value(f"config.{name}.{key}", fields[key], value)
    return schema(**checked)


def _unknown(full: str, key: str, known: list[str], prefix: str) -> str:
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    if near:
        return f"{full} is not a setting; did you mean {prefix}{near[0]}?"
    return f"{full} is not a setting; known there: {', '.join(known)}"


def _value(name: str, schema: dataclasses.Field, value: Any) -> Any:
    value = _typed(name, schema.type, value)
    rules = schema.metadata
    for element in value if isinstance(value, tuple) else (value,):
        if rules["choices"] and element not in rules["choices"]:
            near = difflib.get_close_matches(str(element), map(str, rules["choices"]), n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            choices = ", ".join(map(str, rules["choices"]))
            raise UserError(f"{name}={element!r} is not one of {choices}{hint}")
        too_low = rules["low"] is not None and not element >= rules["low"]
        too_high = rules["high"] is not None and not element <= rules["high"]
        if too_low or too_high:
            limits = f"at least {rules['low']}" if rules["low"] is not None else ""
            if rules["high"] is not None:
                limits += f"{' and ' if limits else ''}at most {rules['high']}"
            raise UserError(f"{name}={element!r} must be {limits}")
    return value


def _typed(name: str, expected: Any, value: Any) -> Any:
    """`value` as the schema's type, where nothing is lost by the change."""
    if typing.get_origin(expected) is tuple:
        inner = typing.get_args(expected)
        if not isinstance(value, (tuple, list)):
            raise UserError(f"{name}={value!r} must be a tuple such as (64, 64)")
        if inner[-1] is Ellipsis:
            inner = (inner[0],) * len(value)
        if len(value) != len(inner):
            raise UserError(f"{name}={tuple(value)!r} must have {len(inner)} values")
        return tuple(_typed(name, kind, element) for kind, element in zip(inner, value))
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if expected is float and is_number:
        return float(value)
    if expected is int and is_number and value == int(value):
        return int(value)
    if expected in (str, bool) and isinstance(value, expected):
        return value
    kinds = {float: "a number", int: "a whole number", str: "a text", bool: "True or False"}
    raise UserError(f"{name}={value!r} must be {kinds[expected]}")


def _resolve_crop(config: Config) -> Config:
    if config.data.crop != "auto":
        return config
    if config.data.source in CELEBA_SOURCES:
        crop = "nvae148"
    elif config.data.source in ("array", "synthetic"):
        crop = "none"
    else:
        crop = "center"
    return dataclasses.replace(config, data=dataclasses.replace(config.data, crop=crop))


def _check_together(config: Config) -> None:
    """Settings that are each right and yet do not go together."""
    data, model, train = config.data, config.model, config.train
    source = data.source.split(":")[0]
    known = ("synthetic", "celeba", "folder", "array", "tfds")
    if source not in known or (source == "tfds" and not data.source[5:]):
        near = difflib.get_close_matches(source, known, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UserError(
            f"config.data.source={data.source!r} is not one of synthetic, celeba, folder, array, "
            f"tfds:NAME{hint}"
        )
    if len(model.widths) != len(model.blocks):
        raise UserError(
            f"config.model.blocks={model.blocks} must have one number for each of "
            f"config.model.widths={model.widths}"
        )
    if not model.widths:
        raise UserError("config.model.widths=() must name at least one level, such as (64, 128)")
    shrink = model.patch * 2 ** (len(model.widths) - 1)
    if min(data.image_size) < shrink:
        raise UserError(
            f"config.model.widths={model.widths} with config.model.patch={model.patch} divides "
            f"the side by {shrink}, more than config.data.image_size={data.image_size} has; "
            "name fewer widths"
        )
    if config.likelihood.name == "bernoulli" and config.likelihood.scale != "fixed":
        raise UserError(
            f"config.likelihood.scale={config.likelihood.scale!r} has no meaning for bernoulli, "
            "which has no scale; set config.likelihood.scale=fixed"
        )
    if train.batch_size % train.accumulate:
        raise UserError(
            f"config.train.batch_size={train.batch_size} must be a multiple of "
            f"config.train.accumulate={train.accumulate}"
        )
    for key in ("steps", "log_every", "eval_every", "save_every"):
        if getattr(train, key) % train.steps_per_dispatch:
            raise UserError(
                f"config.train.{key}={getattr(train, key)} must be a multiple of "
                f"config.train.steps_per_dispatch={train.steps_per_dispatch}"
            )
