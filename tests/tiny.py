"""The smallest config that has every part of a run, for runs of seconds. Also a config file."""

import dataclasses
import importlib.util
import json
import pathlib

import ml_collections

from vaejax.cli.command_line import reset_replaced
from vaejax.config import Config, default_config
from vaejax.config.settings import resolve

CONFIG_FILE = pathlib.Path(__file__)
# Flags of commands for less to compile, in tests for which the prior does not matter.
LEAST = ("--config.prior.name=standard_normal", "--config.model.blocks=(0, 1)")
# Flags of commands to validate, draw pictures and save only at the end.
ONCE = ("--config.train.eval_every=12", "--config.train.save_every=12")


LADDER = {
    "data": {"image_size": (20, 16), "channels": 1},
    "model": {"widths": (4, 6, 6), "blocks": (2, 0, 1)},
}


def get_config(model: str = "conv") -> ml_collections.ConfigDict:
    """Returns the config for `--config=tests/tiny.py` or `--config=tests/tiny.py:MODEL`.

    Args:
      model: `conv`, `spatial`, `ladder`, or `least`, a `conv` of two steps with the least to
        compile.
    """
    config = default_config()
    config.model.name = "conv" if model == "least" else model
    config.data.image_size = (28, 28)
    config.data.synthetic_counts = (64, 24, 8)
    config.model.widths = (8, 16)
    config.model.blocks = (0, 1)
    config.model.patch = 2
    config.train.batch_size = 8
    config.train.steps = 12
    config.train.log_every = 3
    config.train.eval_every = 6
    config.train.save_every = 4
    config.eval.batch_size = 10
    config.eval.importance_samples = 4
    config.eval.grid = 4
    if model == "ladder":
        config.model.latent = 2
        config.likelihood.name = "mixture"
        config.likelihood.components = 3
        config.prior.name, config.prior.fitted = "hierarchical", ()
        return config
    if model == "spatial":
        config.model.latent = 2
        config.prior.name = "standard_normal"
        return config
    config.model.latent_size = 6
    if model == "least":
        config.train.steps = 2
        config.prior.name, config.prior.fitted = "standard_normal", ()
        return config
    config.prior.layers = 1
    config.prior.width = 16
    return config


def tiny(model_name: str = "conv", **sections: dict) -> Config:
    """Returns the tiny config with some settings changed: `tiny(train={"steps": 3})`."""
    config = get_config(model_name)
    for section, values in sections.items():
        config[section].update(values)
    reset_replaced(config, flags_of(model_name, **sections))
    return resolve(config)


def least(**sections: dict) -> Config:
    """Returns `tiny` with less to compile, for tests for which the prior does not matter."""
    small = {"model": {"blocks": (0, 1)}, "prior": {"name": "standard_normal"}}
    return tiny(**{name: {**small.get(name, {}), **sections.get(name, {})}
                   for name in {**small, **sections}})  # fmt: skip


def tiny_ladder(**sections: dict) -> Config:
    """Returns a ladder with three groups at two resolutions; a level between them has no group."""
    return tiny("ladder", **{**LADDER, **sections})


def flags_of(model_name: str = "conv", **sections: dict) -> list[str]:
    """Returns the flags that give a command the config `tiny(model_name, **sections)`."""
    changes = [(name, key, value) for name in sections for key, value in sections[name].items()]
    return [
        f"--config={CONFIG_FILE}:{model_name}",
        *(f"--config.{name}.{key}={value}" for name, key, value in changes),
    ]


def without(config: Config, section: str, **values: object) -> Config:
    """Returns `config` with other values in one section, without checking them."""
    part = dataclasses.replace(getattr(config, section), **values)
    return dataclasses.replace(config, **{section: part})


def of_file(path: pathlib.Path) -> ml_collections.ConfigDict:
    """Returns the config that a config file makes."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config()


def metrics(workdir: pathlib.Path) -> list[dict]:
    """Returns the lines of metrics.jsonl without the values that are measured times."""
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    values = [json.loads(line) for line in lines]
    for line in values:
        for name in ("images_per_second", "data_wait"):
            line.pop(name, None)
    return values
