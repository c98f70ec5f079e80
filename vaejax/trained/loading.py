"""Loads a trained model from its work directory, and opens the data that it was trained on."""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

from jaxtyping import PyTree

from vaejax import data
from vaejax.config import Config, DataConfig
from vaejax.config.saved import load_json
from vaejax.errors import DamagedCheckpoint, UserError
from vaejax.files.paths import local_path
from vaejax.records.checkpoints import Checkpoints
from vaejax.records.digests import digest
from vaejax.runtime.mesh import check_devices, replicated, single_device_mesh
from vaejax.runtime.quiet import quiet_libraries
from vaejax.tasks.vae import NET, vae_task
from vaejax.trained.decoder_files import chosen_decoder
from vaejax.trained.model import TrainedModel
from vaejax.trained.prior_files import Origin
from vaejax.trained.temperature_files import load_temperatures
from vaejax.training.same_data import check_same_data
from vaejax.training.saved_state import restore_averages
from vaejax.training.state import shapes
from vaejax.training.task import Task

_FLAGS = {"path": "--data_path", "cache_dir": "--cache_dir"}
_OTHER_DATA = "name the data it was trained on with --data_path, or make it what it was"


def load(
    workdir: str | Path, checkpoint: str | int = "best", *, decoder: str | None = None
) -> TrainedModel:
    """Loads the model that was trained in `workdir`, with its averaged parameters.

    Global state stays as it was: no log level, hook or environment variable changes.

    Args:
      workdir: work directory of a run of `python -m vaejax.main`.
      checkpoint: `best` (by validation; the latest if none was validated), `latest`, or a step.
      decoder: `finished` or `model`, the decoder before its finish; None for the finished one where
        this checkpoint has one.

    Raises:
      UserError: there is no run, it trained no VAE, there is no checkpoint or not this one, its
        decoder was not finished, the file of its temperatures is damaged, or no device can be used.
      DamagedCheckpoint: the checkpoint cannot be read; a `UserError`.
    """
    workdir = local_path("workdir", workdir)
    config = load_json(workdir / "config.json")
    if not config.is_vae:
        raise UserError(
            f"{workdir} holds a network of attributes and no VAE; name the run of a VAE, which "
            "`python -m vaejax.evaluate --attributes=DIR` measures with this network"
        )
    check_devices()
    with quiet_libraries():
        return _load(workdir, config, checkpoint, decoder)


def _load(
    workdir: Path, config: Config, checkpoint: str | int, decoder: str | None
) -> TrainedModel:
    found = restored(workdir, vae_task(config), checkpoint)
    params = found.params[NET]
    origin = Origin(workdir, found.step, digest(params), found.data_fingerprint)
    of_run = origin.step, workdir, origin.data_fingerprint, origin.digest
    finished = chosen_decoder(origin, decoder)
    return TrainedModel(config, params, *of_run, finished, load_temperatures(origin, finished))


class Restored(NamedTuple):
    """What a checkpoint says of trained networks.

    Attributes:
      params: averaged parameters of each network, float32, on one device.
      step: number of updates.
      data_fingerprint: the fingerprint of the data.
    """

    params: dict[str, PyTree]
    step: int
    data_fingerprint: dict[str, Any]


def restored(workdir: Path, task: Task, checkpoint: str | int) -> Restored:
    """Restores the averaged parameters of a run.

    Args:
      workdir: work directory of the run.
      task: what was trained.
      checkpoint: as for `load`.

    Raises:
      UserError: there is no checkpoint, or not this one.
      DamagedCheckpoint: the checkpoint cannot be read; a `UserError`.
    """
    directory = workdir / "checkpoints"
    if not directory.is_dir():
        raise UserError(f"{workdir} holds no checkpoint yet; train for longer")
    checkpoints = Checkpoints(directory, best_by=task.best_by, read_only=True)
    try:
        at = _choose(checkpoints, checkpoint, workdir)
        like, place = shapes(task), replicated(single_device_mesh())
        try:
            params = restore_averages(checkpoints, at, like, place)
        except DamagedCheckpoint as error:
            others = ", ".join(str(step) for step in checkpoints.steps() if step != at) or "none"
            raise DamagedCheckpoint(f"{error}; name another checkpoint: {others}") from error
        return Restored(params, at, checkpoints.meta(at)["data"])
    finally:
        checkpoints.close()


def open_data(
    trained: TrainedModel, path: str | None = None, cache_dir: str | None = None
) -> data.Dataset:
    """Opens the data set, with all its splits, that `trained` was trained on.

    Args:
      trained: the model.
      path: path of the data; None means `config.data.path`.
      cache_dir: directory of the cache of decoded pictures; None means `config.data.cache_dir`.

    Raises:
      UserError: the data is missing, or is not the data of the training. Messages name the flags
        --data_path and --cache_dir, which the commands for trained models have instead of settings.
    """
    if path is not None and trained.config.data.source == "synthetic":
        raise UserError(
            f"--data_path={path} is not read: the run's pictures are synthetic; leave it out"
        )
    config = data_config(trained, path, cache_dir)
    try:
        dataset = data.open_dataset(config, cache_setting=_FLAGS["cache_dir"])
    except UserError as error:
        raise UserError(str(error).replace("config.data.path", _FLAGS["path"])) from error
    check_same_data(trained.workdir, trained.data_fingerprint, dataset, _OTHER_DATA)
    return dataset


def data_config(
    trained: TrainedModel, path: str | None = None, cache_dir: str | None = None
) -> DataConfig:
    """Returns `config.data` with the paths that the flags name; arguments as for `open_data`.

    Raises:
      UserError: a path is an address of a network.
    """
    given = {"path": path, "cache_dir": cache_dir}
    changes: dict[str, Any] = {
        key: str(local_path(_FLAGS[key], value))
        for key, value in given.items()
        if value is not None
    }
    return dataclasses.replace(trained.config.data, **changes)


def _choose(checkpoints: Checkpoints, name: str | int, workdir: Path) -> int:
    steps = checkpoints.steps()
    if not steps:
        raise UserError(f"{workdir} holds no checkpoint yet; train for longer")
    best = checkpoints.best_step()
    if name == "best" and best is not None:
        return best
    if name == "latest":
        return steps[-1]
    if not str(name).isdecimal() or int(name) not in steps:
        raise UserError(
            f"checkpoint {name!r} is not one of best, latest, {', '.join(map(str, steps))}"
        )
    return int(name)
