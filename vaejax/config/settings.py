"""Checks and compares the settings of a config file, of flags, or of a run's JSON."""

import dataclasses
import difflib
import numbers
import os
import sys
import typing
from collections.abc import Iterator
from typing import Any

import ml_collections

from vaejax.config import Config
from vaejax.config.checks import check_together
from vaejax.config.options import Setting, members, settings_of
from vaejax.errors import UserError

CELEBA_SOURCES = ("celeba", "tfds:celeb_a")
# The names of types in error messages.
KINDS = {float: "a number", int: "a whole number", str: "a text", bool: "True or False"}

SECTIONS: dict[str, Any] = typing.get_type_hints(Config)
"""The class of each section, or the union of the classes that its `name` chooses from."""
_SETTINGS = {
    f"{section}.{key}": setting
    for section, kind in SECTIONS.items()
    for key, setting in settings_of(kind).items()
}
# Names that other tools use for a setting.
_OTHER_NAMES = {
    "lr": "optimizer.learning_rate",
    "kl_weight": "objective.beta",
    "kld_weight": "objective.beta",
    "beta_kl": "objective.beta",
    "latent_dim": "model.latent_size",
    "latent_dims": "model.latent_size",
    "z_dim": "model.latent_size",
    "z_channels": "model.latent",
    "latent_channels": "model.latent",
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
    # A section of version 0.1.
    "ladder": "model",
}


def resolve(values: ml_collections.ConfigDict | dict) -> Config:
    """Checks `values` against the schema and returns the settings of a run.

    Args:
      values: nested mapping of settings; missing ones take their defaults.

    Returns:
      The settings, in which a preset has replaced `auto` as `data.crop`.

    Raises:
      UserError: a key is unknown, a value has the wrong type or is outside its limits, or settings
        do not go together. The message is one line that names key, value and remedy.
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
        if name not in SECTIONS:
            check_key(name)
    for name, kind in SECTIONS.items():
        sections[name] = _section(kind, name, values.get(name, {}))
    config = _resolve_crop(Config(**sections))
    check_together(config)
    return config


def changed(config: Config, changes: dict[str, Any]) -> Config:
    """Returns `config` with other values, checked.

    Args:
      config: the settings to start from.
      changes: values by name, such as `{"train.batch_size": 8}`. If a section's `name` is among
        them, the settings that its new class does not have are dropped.

    Raises:
      UserError: as `resolve` raises it.
    """
    values = dataclasses.asdict(config)
    for name, value in changes.items():
        section, key = name.split(".")
        values[section][key] = value
        if key == "name":
            for other in without_meaning(section, value):
                values[section].pop(other, None)
    return resolve(values)


def without_meaning(section: str, name: str) -> set[str]:
    """Returns the keys of a section that other classes have and the class called `name` lacks.

    The set is empty if the section is not a union, or has no class of that name.
    """
    chosen = members(SECTIONS.get(section)).get(name)
    return settings_of(SECTIONS[section]).keys() - settings_of(chosen).keys() if chosen else set()


def check_key(name: str) -> None:
    """Raises UserError, which suggests the nearest name, unless `name` is a known `section.key`."""
    if name in _SETTINGS:
        return
    section, _, key = name.rpartition(".")
    near = _nearest(section, key)
    hint = f"did you mean config.{near}?" if near else f"known: {', '.join(_known(section))}"
    raise UserError(f"config.{name} is not a setting; {hint}")


def names() -> list[str]:
    """Returns the names of all settings, as `section.key`."""
    return list(_SETTINGS)


def setting_of(name: str) -> Setting:
    """Returns the schema's entry for a `section.key`.

    Raises:
      KeyError: there is no such setting.
    """
    return _SETTINGS[name]


def _nearest(section: str, key: str) -> str | None:
    """Returns the setting or section that was probably meant, or None.

    That is the setting that other tools call `key`, else one of this name in another section, else
    one with a similar name.
    """
    if key in _OTHER_NAMES:
        return _OTHER_NAMES[key]
    same = [name for name in _SETTINGS if name.partition(".")[2] == key]
    if same:
        written = f"{section}.{key}"
        return max(same, key=lambda name: difflib.SequenceMatcher(None, written, name).ratio())
    if not section and (near := difflib.get_close_matches(key, SECTIONS, n=1, cutoff=0.6)):
        return near[0]
    own = [name for name in _SETTINGS if name.startswith(f"{section}.")]
    for names, cutoff in ((own, 0.5), (list(_SETTINGS), 0.7)):
        leaves = {name.partition(".")[2]: name for name in names}
        if near := difflib.get_close_matches(key, leaves, n=1, cutoff=cutoff):
            return leaves[near[0]]
    return None


def _known(section: str) -> list[str]:
    """Returns the settings of a section, or all sections if there is none of that name."""
    own = [name for name in _SETTINGS if name.startswith(f"{section}.")]
    return own or list(SECTIONS)


def differences(old: Config, new: Config) -> list[str]:
    """Returns a line `key: old -> new` for each changed setting that makes `new` another run.

    Settings that a run may change are left out. A setting that only one config has, because they
    name different classes, is `None` in the other.
    """
    before, after = dict(_leaves(old)), dict(_leaves(new))
    return [
        f"{key}: {before.get(key)!r} -> {after.get(key)!r}"
        for key in before | after
        if before.get(key) != after.get(key) and not setting_of(key).may_change
    ]


def common(config: Config) -> dict[str, Any]:
    """Returns the settings that must be equal on all processes of a run, by name."""
    return {key: value for key, value in _leaves(config) if not setting_of(key).of_machine}


def _leaves(config: Config) -> Iterator[tuple[str, Any]]:
    for section in dataclasses.fields(config):
        for key, value in dataclasses.asdict(getattr(config, section.name)).items():
            yield f"{section.name}.{key}", value


def _section(kind: Any, section: str, values: Any) -> Any:
    """Returns an instance of the section's class, or of the union's class that `name` chooses."""
    if not isinstance(values, dict):
        raise UserError(f"config.{section} is {values!r}; it must be a section of settings")
    checked = {}
    for key, value in values.items():
        check_key(f"{section}.{key}")
        checked[key] = _value(f"config.{section}.{key}", setting_of(f"{section}.{key}"), value)
    classes = members(kind)
    chosen = classes[checked.get("name", next(iter(classes)))] if classes else kind
    own = settings_of(chosen)
    for key, value in checked.items():
        # A config file has the defaults of all classes, and may repeat what its class fixes.
        default = setting_of(f"{section}.{key}").default
        if key not in own and value not in (default, getattr(chosen, key, default)):
            others = " or ".join(name for name in classes if key in settings_of(classes[name]))
            raise UserError(
                f"config.{section}.{key}={value!r} is of config.{section}.name={others}, and "
                f"{chosen.name} has none; leave it out"
            )
    return chosen(**{key: value for key, value in checked.items() if key in own})


def _value(name: str, setting: Setting, value: Any) -> Any:
    value = _typed(name, setting.type, value)
    for element in value if isinstance(value, tuple) else (value,):
        if setting.choices and element not in setting.choices:
            near = difflib.get_close_matches(str(element), map(str, setting.choices), n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            choices = ", ".join(map(str, setting.choices))
            raise UserError(f"{name}={element!r} is not one of {choices}{hint}")
        too_low = setting.low is not None and not element >= setting.low
        too_high = setting.high is not None and not element <= setting.high
        if too_low or too_high:
            limits = f"at least {setting.low}" if setting.low is not None else ""
            if setting.high is not None:
                limits += f"{' and ' if limits else ''}at most {setting.high}"
            raise UserError(f"{name}={element!r} must be {limits}")
    return value


def _typed(name: str, expected: Any, value: Any) -> Any:
    """Returns `value` as the schema's type if the conversion loses nothing."""
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
    # Numbers of NumPy count as well.
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
