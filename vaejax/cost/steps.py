"""The training step of each stage of a run, described by shapes: nothing is trained or read."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import PyTree

from vaejax.config import Config
from vaejax.data import Dataset, Split
from vaejax.errors import UserError
from vaejax.stages.configs import finish_config, flow_config
from vaejax.tasks.finish import FinishTask
from vaejax.tasks.flow_prior import FlowPriorTask
from vaejax.tasks.flow_prior.labels import label_values
from vaejax.tasks.vae import NET, vae_task
from vaejax.trained.prior_files import OWN_PRIOR
from vaejax.training.state import shapes
from vaejax.training.step import make_train_step
from vaejax.training.task import Task

MODEL, FLOW, FINISH = "model", "flow", "finish"
# The settings of each stage's batch size, and of the dtype of its activations.
BATCH_SIZE = {MODEL: "train.batch_size", FLOW: "flow.batch_size", FINISH: "finish.batch_size"}
DTYPE = {MODEL: "model.dtype", FLOW: "flow.dtype", FINISH: "model.dtype"}
# Rows of arrays that are there only for their shapes: a prior is fitted to two codes or more.
_ROWS = 2

Shapes = dict[str, jax.ShapeDtypeStruct]


class Step(NamedTuple):
    """The training step of a stage.

    Attributes:
      task: what is trained.
      config: config of the stage.
      batch: what one call takes, [dispatch, batch, ...].
      resident: the examples that every device holds, from which the step then picks by `index`;
        empty where the batch has them.
      costlier: share of the updates in which a branch takes its costlier side.
    """

    task: Task
    config: Config
    batch: Shapes
    resident: Shapes
    costlier: float = 1.0

    def trace(self, mesh: Mesh) -> jax.stages.Traced:
        """Traces the step for the devices of `mesh`, which need not be attached."""
        resident = [self.resident] if self.resident else []
        step = make_train_step(self.task, self.config.train, mesh, on_device=bool(resident))
        return step.trace(shapes(self.task), self.batch, *resident)


def model_step(config: Config, task: Task | None = None) -> Step:
    """Returns the step that trains the model, whose pictures come with each batch.

    Args:
      config: config of the run.
      task: a task that trains on pictures too, instead of that of `config`.

    Raises:
      UserError: the model is no VAE.
    """
    task = task or vae_task(config)
    return Step(task, config, _batch(config, task.examples(_data(config))["train"]), {})


def flow_step(config: Config, devices: int, pictures: int) -> Step:
    """Returns the step that trains the flow prior on codes that every device holds.

    Args:
      config: config of the model.
      devices: number of devices that share the batch.
      pictures: number of training pictures, whose codes are held; 0: as many as a batch has.
    """
    shape = config.latent_shape
    count = max(pictures, batch_size(config, FLOW))
    config = flow_config(config, count, devices)
    codes = np.zeros((_ROWS, math.prod(shape)), np.float32)
    mirrored = codes if config.data.flip else None
    task = FlowPriorTask(
        config,
        {"train": codes},
        _no_pictures,
        {},
        latent_shape=shape,
        mirrored=mirrored,
        labels=label_values(_data(config), config.flow.labels),
    )
    rows = task.examples(_data(config))["train"]
    resident = {
        name: jax.ShapeDtypeStruct((count, *array.shape[1:]), array.dtype)
        for name, array in rows.items()
    }
    return Step(task, config, _batch(config, {"index": np.zeros(_ROWS, np.int32)}), resident)


def finish_step(config: Config) -> Step:
    """Returns the step that trains decoder and discriminator; pictures come with each batch."""
    params = _zeros(shapes(vae_task(config)).state.nets[NET].params)
    config = finish_config(config)
    own = config.finish.prior == OWN_PRIOR or config.model.has_groups
    samples = None if own else np.zeros((_ROWS, math.prod(config.latent_shape)), np.float32)
    task = FinishTask(config, params, samples, {})
    batch = _batch(config, task.examples(_data(config))["train"])
    return Step(task, config, batch, {}, 1 / config.finish.penalty_every)


def step_of(config: Config, stage: str, devices: int = 1, pictures: int = 0) -> Step:
    """Returns the training step of a stage.

    Args:
      config: config of the run.
      stage: `model`, `flow` or `finish`.
      devices: number of devices that share the batch.
      pictures: number of training pictures; only the flow prior's stage holds all of their codes.

    Raises:
      UserError: the model has no such stage.
    """
    check_stage(config, stage)
    steps: Mapping[str, Callable[[], Step]] = {
        MODEL: lambda: model_step(config),
        FLOW: lambda: flow_step(config, devices, pictures),
        FINISH: lambda: finish_step(config),
    }
    return steps[stage]()


def check_stage(config: Config, stage: str) -> None:
    """Raises UserError if the model of `config` has no such stage."""
    if stage != MODEL and not config.is_vae:
        raise UserError(
            f"--stage={stage} is of a VAE, and config.model.name={config.model.name} is none; name "
            "the config file of a VAE, such as configs/celeba.py"
        )
    if stage == FLOW and not config.latent_shape:
        raise UserError(
            f"--stage={stage} is of latent vectors or maps, and config.model.name="
            f"{config.model.name} has none; name --stage={FINISH}, or --stage={MODEL}"
        )


def batch_size(config: Config, stage: str) -> int:
    """Returns the batch size of a stage, over all devices."""
    if stage == FLOW:
        return config.flow.of(config.latent_shape).batch_size
    return setting(config, BATCH_SIZE[stage])


def setting(config: Config, name: str) -> Any:
    """Returns the value of the setting `section.key`."""
    section, key = name.split(".")
    return getattr(getattr(config, section), key)


def _batch(config: Config, rows: Mapping[str, np.ndarray]) -> Shapes:
    """The shapes of one call's batch of such rows, [dispatch, batch, ...]."""
    leading = (config.train.steps_per_dispatch, config.train.batch_size)
    return {
        name: jax.ShapeDtypeStruct((*leading, *array.shape[1:]), array.dtype)
        for name, array in rows.items()
    }


def _data(config: Config) -> Dataset:
    """Stands in for the data of a run: black pictures of its shape, with `config.flow.labels`."""
    images = np.zeros((_ROWS, *config.data.shape), np.uint8)
    labels = {name: np.arange(_ROWS) for name in config.flow.labels}
    return Dataset({"train": Split(images, labels)}, {}, {})


def _zeros(tree: PyTree) -> PyTree:
    """Returns arrays of these shapes that take no memory: a single zero, seen everywhere."""
    return jax.tree.map(lambda leaf: np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape), tree)


def _no_pictures(codes: Any) -> Any:
    """Takes the place of a decoder: no codes are decoded here."""
    raise NotImplementedError
