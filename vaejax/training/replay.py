"""Computes an update that was not finite once more, to name the tensor where that began."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from vaejax.config import TrainConfig
from vaejax.data.feed.order import batch_indices
from vaejax.data.feed.pipeline import Arrays
from vaejax.training.step import step_keys
from vaejax.training.task import Task


def explain_not_finite(
    task: Task,
    settings: TrainConfig,
    params: dict[str, PyTree],
    arrays: Arrays,
    at: int,
) -> str:
    """Names the first tensor that is not finite in the update of step `at`, and its examples.

    Args:
      task: what is learned.
      settings: settings of the loop.
      params: before the update, of each network.
      arrays: the examples of the training split.
      at: the step.
    """
    size = settings.batch_size
    positions = np.arange(at * size, (at + 1) * size)
    index = batch_indices(settings.seed, positions, len(next(iter(arrays.values()))))
    # As many at a time as a device has in training, which may have no room for all.
    parts = np.array_split(np.arange(size), settings.accumulate * jax.device_count())
    augment_key, noise_key = step_keys(jax.random.key(settings.seed), jnp.asarray(at))
    examples = {name: jnp.asarray(array[index]) for name, array in arrays.items()}
    batch = task.augment({**examples, "index": jnp.asarray(index, jnp.int32)}, augment_key)
    found = task.first_not_finite(params, batch, jax.random.split(noise_key, size), parts)
    if found is None:
        return "the batch is finite now: look for numbers that differ from run to run"
    name, rows = found
    return (
        f"first tensor that is not finite: {name}; examples of that batch: "
        f"{index[rows].tolist()}; look at them, or lower config.optimizer.learning_rate"
    )
