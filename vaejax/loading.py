"""A trained model, read from its work directory, and the pictures it was trained on."""

import dataclasses
from pathlib import Path

from vaejax import data, step
from vaejax.checkpoints import Checkpoints
from vaejax.errors import UserError
from vaejax.models import build_model
from vaejax.parallel import single_device_mesh, state_shardings
from vaejax.settings import load_json
from vaejax.trained import TrainedModel
from vaejax.workdir import check_same_data


def load(workdir: str | Path, checkpoint: str = "best") -> TrainedModel:
    """The model that was trained in `workdir`.

    Args:
      workdir: of a run of `python -m vaejax.main`.
      checkpoint: `best` (by validation), `latest`, or a step.

    Raises:
      UserError: no run, no checkpoint, or not this one.
    """
    workdir = Path(workdir).expanduser()
    config = load_json(workdir / "config.json")
    directory = workdir / "checkpoints"
    if not directory.is_dir():
        raise UserError(f"{workdir} holds no checkpoint yet; train for longer")
    checkpoints = Checkpoints(directory, read_only=True)
    try:
        at = _choose(checkpoints, checkpoint, workdir)
        model = build_model(config)
        like = step.state_shapes(model, config)
        shardings = state_shardings(single_device_mesh(), like)
        params, digest = checkpoints.restore_average(at, like, shardings)
        fingerprint = checkpoints.meta(at)["data"]
    finally:
        checkpoints.close()
    return TrainedModel(config, params, at, workdir, fingerprint, digest)


def open_data(trained: TrainedModel, path: str | None = None) -> data.Dataset:
    """The pictures that `trained` was trained on, and its other splits.

    Args:
      trained: the model.
      path: where they lie, if not where its config says.

    Raises:
      UserError: they are missing, or others.
    """
    config = trained.config.data
    if path is not None:
        config = dataclasses.replace(config, path=path)
    dataset = data.open_dataset(config)
    check_same_data(trained.workdir, trained.data_fingerprint, dataset.fingerprint)
    return dataset


def _choose(checkpoints: Checkpoints, name: str, workdir: Path) -> int:
    steps = checkpoints.steps()
    if not steps:
        raise UserError(f"{workdir} holds no checkpoint yet; train for longer")
    if name == "best":
        return checkpoints.best_step()
    if name == "latest":
        return steps[-1]
    if not name.isdecimal() or int(name) not in steps:
        raise UserError(
            f"checkpoint {name!r} is not one of best, latest, {', '.join(map(str, steps))}"
        )
    return int(name)
