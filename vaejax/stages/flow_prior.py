"""The flow prior's stage: a run of its own that trains on the codes of a trained model."""

import dataclasses
from pathlib import Path

import jax

from vaejax.config import FlowConfig
from vaejax.config.saved import load_json
from vaejax.data import Dataset
from vaejax.errors import UserError
from vaejax.records.checkpoint_files import saved
from vaejax.records.digests import digest
from vaejax.records.progress import say
from vaejax.runtime.processes import ALONE, Group
from vaejax.stages.codes import saved_codes
from vaejax.stages.configs import flow_config
from vaejax.stages.sequence import Stage
from vaejax.tasks.flow_prior import FlowPriorTask
from vaejax.tasks.flow_prior.labels import label_values, sides_are_known
from vaejax.trained.loading import restored
from vaejax.trained.model import TrainedModel
from vaejax.trained.prior_files import save_fitted

NAME = "flow_matching"


def flow_prior_stage(
    trained: TrainedModel, dataset: Dataset, group: Group = ALONE, *, seed: int = 0
) -> Stage:
    """Builds the stage that trains the flow on one code z ~ q(z|x) of each picture.

    The codes are sampled here, by process 0, unless their files exist. When the stage is finished,
    its best checkpoint is saved as the prior `flow_matching` of `trained`.

    Args:
      trained: the model, on every process.
      dataset: the data set that `trained` was trained on.
      group: the processes that train together.
      seed: seed of the codes and of the training.

    Raises:
      UserError: the codes are too few or not finite, or the stage has been trained with other
        settings of `config.flow`, or the data has no such labels.
    """
    directory, shape = stage_directory(trained, seed), trained.config.latent_shape
    with group.together():
        _check_settings(directory, trained.config.flow, shape)
    labels = label_values(dataset, trained.config.flow.labels)
    codes = saved_codes(trained, dataset, directory, group, seed)
    mirrored = codes.pop("mirrored", None)
    if labels and mirrored is not None and not sides_are_known(dataset):
        named = ", ".join(trained.config.flow.labels)
        say(
            f"mirror images keep the labels {named}; if one of them has a side, such as the "
            "direction of a look, train a new run with --config.data.flip=False"
        )
    count = len(codes["train"])
    config = flow_config(trained.config, count, jax.device_count(), seed)
    builds_on = {"step": trained.step, "digest": trained.digest}
    if labels:  # those of folders are not in the fingerprint of the data
        builds_on["labels"] = digest(labels)
    task = FlowPriorTask(
        config,
        codes,
        trained.decode,
        builds_on,
        latent_shape=shape,
        mirrored=mirrored,
        labels=labels,
    )
    return Stage(config, directory, task, lambda: _keep_best(trained, task, directory, count))


def stage_directory(trained: TrainedModel, seed: int = 0) -> Path:
    """The work directory of the stage's own run, one for each checkpoint of `trained` and seed."""
    return trained.workdir / "stages" / f"{NAME}_{trained.step:08d}_{seed}"


def _check_settings(directory: Path, flow: FlowConfig, latent_shape: tuple[int, ...]) -> None:
    """Raises UserError if the stage has checkpoints of other settings.

    The model's run may change these settings, so `records.workdir.claim` does not compare them.
    """
    if not saved(directory / "checkpoints"):
        return
    trained = load_json(directory / "config.json").flow
    old, new = (dataclasses.asdict(one.of(latent_shape)) for one in (trained, flow))
    changed = [f"{key}: {old[key]!r} -> {new[key]!r}" for key in old if old[key] != new[key]]
    if changed:
        raise UserError(
            f"{directory} holds a flow with other settings of config.flow ({'; '.join(changed)}); "
            "remove it to train anew, or set them back"
        )


def _keep_best(trained: TrainedModel, task: FlowPriorTask, directory: Path, codes: int) -> None:
    """Saves the averaged parameters of the stage's best checkpoint as a prior of `trained`."""
    found = restored(directory, task, "best")
    save_fitted(trained.origin, NAME, task.prior(found.params), codes)
    say(f"prior {NAME} of step {found.step}: {trained.origin.path(NAME)}")
