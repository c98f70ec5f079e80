"""Computes with NumPy what the toy task of `toy.py` must learn."""

import jax
import jax.numpy as jnp
import numpy as np
import toy

from vaejax.data import open_dataset
from vaejax.data.feed.order import batch_indices
from vaejax.training.step import step_keys


def played(means, scales=None):
    """Returns the parameters of the three networks by name; `fixed` keeps its initial ones.

    Args:
      means: means of the points that the updates see, [update, 2]; each row is one Adam update.
      scales: factor of the learning rate for each update; None for 1.
    """
    scales = np.ones(len(means)) if scales is None else scales
    params = {name: np.full(2, toy.START) for name in ("player", "adversary", "fixed")}
    moments = {name: (np.zeros(2), np.zeros(2)) for name in ("player", "adversary")}
    for step, mean in enumerate(means):
        gap = mean + params["adversary"] + params["fixed"] - params["player"]
        gradients = {"player": -gap, "adversary": 0.2 * params["adversary"] - gap}
        for name, gradient in gradients.items():
            first, second = moments[name]
            first = toy.SETTINGS.b1 * first + (1 - toy.SETTINGS.b1) * gradient
            second = toy.SETTINGS.b2 * second + (1 - toy.SETTINGS.b2) * gradient**2
            moments[name] = first, second
            ages = 1 - toy.SETTINGS.b1 ** (step + 1), 1 - toy.SETTINGS.b2 ** (step + 1)
            direction = first / ages[0] / (np.sqrt(second / ages[1]) + 1e-8)
            params[name] = params[name] - scales[step] * toy.SETTINGS.learning_rate * direction
    return params


def means_of_a_run(config):
    """Returns the mean of the points that each update of a run sees, [update, 2].

    The labels come in the training order; the key of each step chooses which of them are mirrored.
    """
    labels = open_dataset(config.data).splits["train"].labels
    size, means = config.train.batch_size, []
    for step in range(config.train.steps):
        places = np.arange(step * size, (step + 1) * size)
        rows = batch_indices(config.train.seed, places, len(labels["yaw"]))
        augment_key, _ = step_keys(jax.random.key(config.train.seed), jnp.int32(step))
        mirrored = np.asarray(jax.random.bernoulli(augment_key, 0.5, (size,)))
        yaw = np.where(mirrored, -labels["yaw"][rows], labels["yaw"][rows]) / 30.0
        means.append([np.mean(yaw, dtype=np.float64), np.mean(labels["smile"][rows])])
    return np.array(means, np.float64)
