"""Checks, compares and stores settings from a config file or a run's JSON."""

import dataclasses
import difflib
import json
import numbers
import os
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_collections

from vaejax.config import Config
from vaejax.config.checks import check_together
from vaejax.errors import UserError
from vaejax.files.atomic import replacing

CELEBA_SOURCES = ("celeba", "tfds:celeb_a")
# What a value of each type is called.
KINDS = {float: "a number", int: "a whole number", str: "a text", bool: "True or False"}

_SECTIONS: dict[str, Any] = typing.get_type_hints(Config)
_FIELDS = {
    f"{section}.{setting.name}": setting
    for section, kind in _SECTIONS.items()
    for setting in dataclasses.fields(kind)
}
# What other tools call a setting.
_OTHER_NAMES = {
    "lr": "optimizer.learning_rate",
    "kl_weight": "objective.beta",
    "kld_weight": "objective.beta",
    "beta_kl": "objective.beta",
    "latent_dim": "model.latent_size",
    "latent_dims": "model.latent_size",
    "z_dim": "model.latent_size",
    "batch_size": "train.batch_size",
    "bs": "train.batch_size",
    "num_steps": "train.steps",
    "iterations": "train.steps",
    "epochs": "train.steps",
    "num_epochs": "train.steps",
    "wd": "optimizer.weight_decay",
    "grad_clip": "optimizer.clip_norm",
    "gradient_clip": "optimizer.clip_norm",
    "resolution": "data.image_size",
    "img_size": "data.image_size",
    "data_dir": "data.path",
    "dataset": "data.source",
    "num_workers": "data.decode_threads",
    "precision": "model.dtype",
    "random_seed": "train.seed",
}


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
    if not isinstance(values, dict):
        raise UserError(
            f"the settings are {values!r}; they must be sections of settings: does get_config "
            "return its config?"
        )
    sections = {}
    for name in values:
        if name not in _SECTIONS:
            check_key(name)
    for name, kind in _SECTIONS.items():
        sections[name] = _section(kind, name, values.get(name, {}))
    config = _resolve_crop(Config(**sections))
    check_together(config)
    return config


def changed(config: Config, changes: dict[str, Any]) -> Config:
    """`config` with other values, checked; `{"train.batch_size": 8}`.

    Raises:
      UserError: as `resolve` does.
    """
    values = dataclasses.asdict(config)
    for name, value in changes.items():
        section, key = name.split(".")
        values[section][key] = value
    return resolve(values)


def check_key(name: str) -> None:
    """Raises UserError unless `name` is a `section.key` of the schema; it names the nearest one."""
    if name in _FIELDS:
        return
    section, _, key = name.rpartition(".")
    near = _nearest(section, key)
    hint = f"did you mean config.{near}?" if near else f"known: {', '.join(_known(section))}"
    raise UserError(f"config.{name} is not a setting; {hint}")


def names() -> list[str]:
    """All settings, as `section.key`."""
    return list(_FIELDS)


def field_of(name: str) -> dataclasses.Field:
    """The schema's entry of a `section.key`."""
    return _FIELDS[name]


def _nearest(section: str, key: str) -> str | None:
    """What was probably meant: what others call so, the same name elsewhere, or one like it."""
    if key in _OTHER_NAMES:
        return _OTHER_NAMES[key]
    same = [name for name in _FIELDS if name.partition(".")[2] == key]
    if same:
        written = f"{section}.{key}"
        return max(same, key=lambda name: difflib.SequenceMatcher(None, written, name).ratio())
    if not section and (near := difflib.get_close_matches(key, _SECTIONS, n=1, cutoff=0.6)):
        return near[0]
    own = [name for name in _FIELDS if name.startswith(f"{section}.")]
    for names, cutoff in ((own, 0.5), (list(_FIELDS), 0.7)):
        leaves = {name.partition(".")[2]: name for name in names}
        if near := difflib.get_close_matches(key, leaves, n=1, cutoff=cutoff):
            return leaves[near[0]]
    return None


def _known(section: str) -> list[str]:
    """The settings of a section; the sections where there is none of that name."""
    own = [name for name in _FIELDS if name.startswith(f"{section}.")]
    return own or list(_SECTIONS)


def to_json(config: Config) -> str:
    """The settings as indented JSON, keys in the schema's order."""
    return json.dumps(dataclasses.asdict(config), indent=2) + "\n"


def from_json(text: str) -> Config:
    """The inverse of `to_json`; checks like `resolve`."""
    return resolve(json.loads(text))


def save_json(path: Path, config: Config) -> None:
    """Writes `to_json`, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(to_json(config))


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
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is no JSON ({error}); restore it, or begin a new run") from error
    except UserError as error:
        raise UserError(f"{path} does not fit this version of vaejax: {error}") from error


def differences(old: Config, new: Config) -> list[str]:
    """Lines `key: old -> new` for the settings that make `new` another run than `old`."""
    before, after = dict(_leaves(old)), dict(_leaves(new))
    return [
        f"{key}: {before[key]!r} -> {after[key]!r}"
        for key in before
        if before[key] != after[key] and not field_of(key).metadata["may_change"]
    ]


def common(config: Config) -> dict[str, Any]:
    """The settings that all processes of a run must share, by their names."""
    return {
        key: value for key, value in _leaves(config) if not field_of(key).metadata["of_machine"]
    }


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
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    # NumPy's too.
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    # An integer may be larger than any float.
    if is_number and not abs(value) <= sys.float_info.max:
        raise UserError(f"{name}={str(value)[:40]} must be a finite number")
    if expected is float and is_number:
        return float(value)
    if expected is int and is_number and value == int(value):
        return int(value)
    if expected in (str, bool) and isinstance(value, expected):
        return value
    raise UserError(f"{name}={value!r} must be {KINDS[expected]}")


def _resolve_crop(config: Config) -> Config:
    if config.data.crop != "auto":
        return config
    # A data set of TFDS may name its version: tfds:celeb_a:2.1.0.
    if ":".join(config.data.source.split(":")[:2]) in CELEBA_SOURCES:
        crop = "nvae148"
    elif config.data.source in ("array", "synthetic"):
        crop = "none"
    else:
        crop = "center"
    return dataclasses.replace(config, data=dataclasses.replace(config.data, crop=crop))
