"""What the toy task of `toy.py` must learn, computed by NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import toy

from vaejax.data import open_dataset
from vaejax.data.feed.order import batch_indices
from vaejax.training.step import step_keys


def played(means):
    """The players' positions by hand, from the means of the points that each update saw."""
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
            params[name] = params[name] - toy.SETTINGS.learning_rate * direction
    return params


def means_of_a_run(config):
    """What each update of a run sees: labels in the order of the data, mirrored by the step's key.

    Of the points, in the picture's left and right, the mean.
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
