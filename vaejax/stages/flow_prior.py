"""The flow prior's stage: a run of its own that trains on the codes of a trained model."""

import dataclasses
import itertools
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Float

from vaejax.config import Config, OptimizerConfig
from vaejax.data import Dataset
from vaejax.data.cache.npy import NpyWriter
from vaejax.files.atomic import replacing
from vaejax.records.checkpoints import Checkpoints
from vaejax.records.progress import say
from vaejax.runtime.mesh import replicated, single_device_mesh
from vaejax.runtime.processes import ALONE, Group
from vaejax.stages.sequence import Stage
from vaejax.tasks.flow_prior import FlowPriorTask
from vaejax.trained.model import TrainedModel
from vaejax.trained.prior_files import save_fitted
from vaejax.training.saved_state import restore_averages
from vaejax.training.state import shapes

NAME = "flow_matching"
_MIN_BATCH, _BATCH, _EPOCHS = 64, 1024, 128
# Updates in one dispatch. They need no data from the host, as each device holds all codes.
_DISPATCH = 50
_MIN_STEPS, _MAX_STEPS = 200, 2_000


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
      UserError: the codes are too few or not finite.
    """
    directory = stage_directory(trained, seed)
    codes = _codes(trained, dataset, directory, group, seed)
    config = _config(trained.config, len(codes["train"]), seed)
    builds_on = {"step": trained.step, "digest": trained.digest}
    task = FlowPriorTask(config, codes, trained.decode, builds_on)
    count = len(codes["train"])
    return Stage(config, directory, task, lambda: _keep_best(trained, task, directory, count))


def stage_directory(trained: TrainedModel, seed: int = 0) -> Path:
    """The work directory of the stage's own run, one for each checkpoint of `trained` and seed."""
    return trained.workdir / "stages" / f"{NAME}_{trained.step:08d}_{seed}"


def _config(config: Config, codes: int, seed: int) -> Config:
    """The config of the stage: the model's config with its own optimiser and loop."""
    # Fewer codes get fewer updates: with as many as for a large data set, the flow would overfit.
    steps = min(max(codes * _EPOCHS // _BATCH, _MIN_STEPS), _MAX_STEPS)
    steps = -(-steps // _DISPATCH) * _DISPATCH
    batch_size, devices = min(max(codes, _MIN_BATCH), _BATCH), jax.device_count()
    optimizer = OptimizerConfig(warmup_steps=steps // 20, final_fraction=0.0, b2=0.999)
    return dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, on_device="always"),
        optimizer=optimizer,
        train=dataclasses.replace(
            config.train,
            steps=steps,
            batch_size=-(-batch_size // devices) * devices,
            accumulate=1,
            steps_per_dispatch=_DISPATCH,
            seed=seed,
            log_every=2 * _DISPATCH,
            eval_every=10 * _DISPATCH,
            save_every=10 * _DISPATCH,
        ),
    )


def _codes(
    trained: TrainedModel, dataset: Dataset, directory: Path, group: Group, seed: int
) -> dict[str, Float[np.ndarray, "picture latent"]]:
    """One code of each picture of the training and validation splits, memory-mapped from disk."""
    files = {
        split: directory / f"codes_{split}_{trained.digest:08x}.npy"
        for split in ("train", "valid")
        if split in dataset.splits
    }
    with group.together():  # waits for process 0
        missing = {split: file for split, file in files.items() if not file.is_file()}
        for split, file in missing.items() if group.index == 0 else ():
            directory.mkdir(parents=True, exist_ok=True)
            batches = trained.posterior_samples(dataset.splits[split].images, seed=seed)
            # Each batch is one array, because a ladder, whose latents are several, has no flow.
            _write(file, map(np.asarray, batches))
    return {split: np.load(file, mmap_mode="r") for split, file in files.items()}


def _write(file: Path, batches: Iterator[Float[np.ndarray, "batch *latent"]]) -> None:
    """Writes codes batch by batch, so that memory need not hold them all."""
    first = next(batches)
    with (
        replacing(file) as temporary,
        NpyWriter(temporary, first.shape[1:], first.dtype) as writer,
    ):
        for codes in itertools.chain([first], batches):
            writer.append(codes)


def _keep_best(trained: TrainedModel, task: FlowPriorTask, directory: Path, codes: int) -> None:
    """Saves the averaged parameters of the stage's best checkpoint as a prior of `trained`."""
    place = replicated(single_device_mesh())
    checkpoints = Checkpoints(directory / "checkpoints", best_by=task.best_by, read_only=True)
    with closing(checkpoints):
        at = checkpoints.best_step()
        assert at is not None, "a finished run has a checkpoint"
        params = restore_averages(checkpoints, at, shapes(task), place)
    save_fitted(trained.origin, NAME, task.prior(params), codes)
    say(f"prior {NAME} of step {at}: {trained.origin.path(NAME)}")
