"""Repeats an update that was not finite, to name the first tensor that is NaN or infinite."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from vaejax.config import TrainConfig
from vaejax.data.feed.order import batch_indices
from vaejax.data.feed.pipeline import Arrays
from vaejax.training.nonfinite import first_not_finite
from vaejax.training.step import step_keys
from vaejax.training.task import Task


def explain_not_finite(
    task: Task,
    settings: TrainConfig,
    params: dict[str, PyTree],
    arrays: Arrays,
    at: int,
) -> str:
    """Returns a message that names the first tensor of an update that is not finite.

    Args:
      task: what is trained.
      settings: its `seed`, `batch_size` and `accumulate` determine the update.
      params: parameters of each network before the update, on one device.
      arrays: the examples of the training split.
      at: number of updates before this one.

    Returns:
      The tensor's name, the training examples it was computed from, and advice; or that the update
      is finite this time.
    """
    size = settings.batch_size
    positions = np.arange(at * size, (at + 1) * size)
    index = batch_indices(settings.seed, positions, len(next(iter(arrays.values()))))
    # As many examples at a time as a device has in training: it may not have room for more.
    parts = np.array_split(np.arange(size), settings.accumulate * jax.device_count())
    augment_key, noise_key = step_keys(jax.random.key(settings.seed), jnp.asarray(at))
    examples = {name: jnp.asarray(array[index]) for name, array in arrays.items()}
    batch = task.augment({**examples, "index": jnp.asarray(index, jnp.int32)}, augment_key)
    keys = jax.random.split(noise_key, size)
    found = first_not_finite(task, params, batch, keys, jnp.asarray(at), parts)
    if found is None:
        return (
            "the update is finite when it is repeated: look for what differs from run to run, such "
            "as faulty memory"
        )
    name, rows = found
    where = f"first tensor that is not finite: {name}"
    if rows is None:
        return f"{where}; lower config.optimizer.learning_rate"
    return (
        f"{where}; examples of that batch: {index[rows].tolist()}; look at them, or lower "
        "config.optimizer.learning_rate"
    )
