"""A run of seconds: the smallest config that still has every part. Also a config file."""

import dataclasses
import importlib.util
import json
import os
import pathlib
import socket
import subprocess
import sys

import ml_collections
from forked import Forked, can_fork

from vaejax.config import Config, default_config
from vaejax.config.settings import resolve

CONFIG_FILE = pathlib.Path(__file__)
COMMAND_TIMEOUT = 300


def get_config(model: str = "conv") -> ml_collections.ConfigDict:
    """What `--config=tests/tiny.py` reads, and `--config=tests/tiny.py:ladder` of a ladder."""
    config = default_config()
    config.model.name = model
    config.data.image_size = (28, 28)
    config.data.synthetic_counts = (64, 24, 8)
    config.model.widths = (8, 16)
    config.model.blocks = (1, 1)
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
        config.ladder.latent = 2
        config.likelihood.name = "mixture"
        config.likelihood.components = 3
        config.likelihood.scale = "predicted"
        config.prior.fitted = ()
    else:
        config.model.latent_size = 6
        config.prior.layers = 2
        config.prior.width = 16
    return config


def tiny(model_name: str = "conv", **sections: dict) -> Config:
    """The tiny config with some settings changed: `tiny(train={"steps": 3})`."""
    config = get_config(model_name)
    for section, values in sections.items():
        config[section].update(values)
    return resolve(config)


def tiny_ladder(**sections: dict) -> Config:
    """A ladder of three groups at two resolutions, and one between without any."""
    sections = {
        "data": {"image_size": (20, 16), "channels": 1},
        "model": {"widths": (4, 6, 6), "blocks": (2, 0, 1)},
        **sections,
    }
    return tiny("ladder", **sections)


def without(config: Config, section: str, **values: object) -> Config:
    """`config` with other values in one section, unchecked."""
    part = dataclasses.replace(getattr(config, section), **values)
    return dataclasses.replace(config, **{section: part})


def start(
    module: str, *flags: str, devices: int = 1, cwd: pathlib.Path | None = None
) -> subprocess.Popen | Forked:
    """Starts `python -m vaejax.MODULE`, or of another package if named, without waiting."""
    module = module if "." in module else f"vaejax.{module}"
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": str(devices)}
    if can_fork(environment):
        return Forked(module, flags, environment, cwd)
    return subprocess.Popen(
        [sys.executable, "-m", module, *flags],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
    )


def command(
    module: str, *flags: str, devices: int = 1, cwd: pathlib.Path | None = None
) -> subprocess.CompletedProcess:
    """Runs `python -m vaejax.MODULE` as a user does, to its end."""
    process = start(module, *flags, devices=devices, cwd=cwd)
    out, err = process.communicate(timeout=COMMAND_TIMEOUT)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def assert_one_line(result: subprocess.CompletedProcess, said: str) -> None:
    """A command ended with one line of error, its last, in which `said` stands."""
    assert result.returncode == 2, result.stderr
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and said in errors[0], result.stderr
    assert "Traceback" not in result.stderr
    assert result.stderr.splitlines()[-1] == errors[0]


def of_file(path: pathlib.Path) -> ml_collections.ConfigDict:
    """What a config file sets."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config()


def free_port() -> int:
    """Of this machine, for processes to meet at."""
    with socket.create_server(("localhost", 0)) as server:
        return server.getsockname()[1]


def free_pair() -> int:
    """A free port of this machine whose next one is free as well."""
    while True:
        port = free_port()
        try:
            socket.create_server(("localhost", port + 1)).close()
        except OSError:
            continue
        return port


def metrics(workdir: pathlib.Path) -> list[dict]:
    """The lines of metrics.jsonl, without what the clock decides."""
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    values = [json.loads(line) for line in lines]
    for line in values:
        for name in ("images_per_second", "data_wait"):
            line.pop(name, None)
    return values
