"""An update that went wrong, once more and slowly."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree, UInt8

from vaejax.config import Config
from vaejax.data.feed.order import batch_indices
from vaejax.training.step import step_keys
from vaejax.training.task import Task


def explain_not_finite(
    task: Task,
    config: Config,
    params: dict[str, PyTree],
    images: UInt8[np.ndarray, "picture height width channel"],
    at: int,
) -> str:
    """Names the first tensor that is not finite in the update of step `at`, and its examples.

    Args:
      task: what is learned.
      config: of the run.
      params: before the update, of each network.
      images: the training split.
      at: the step.
    """
    size = config.train.batch_size
    positions = np.arange(at * size, (at + 1) * size)
    index = batch_indices(config.train.seed, positions, len(images))
    # As many at a time as a device has in training, which may have no room for all.
    parts = np.array_split(np.arange(size), config.train.accumulate * jax.device_count())
    augment_key, noise_key = step_keys(jax.random.key(config.train.seed), jnp.asarray(at))
    batch = task.augment({"image": jnp.asarray(images[index])}, augment_key)
    found = task.first_not_finite(params, batch, jax.random.split(noise_key, size), parts)
    if found is None:
        return "the batch is finite now: look for numbers that differ from run to run"
    name, rows = found
    return (
        f"first tensor that is not finite: {name}; examples of that batch: "
        f"{index[rows].tolist()}; look at them, or lower config.optimizer.learning_rate"
    )
