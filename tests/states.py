"""Restores the training state from the last checkpoint of a run, and compares states."""

import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import PyTree

from vaejax.config import Config
from vaejax.records.checkpoints import Checkpoints
from vaejax.runtime.mesh import make_mesh
from vaejax.runtime.shards import state_shardings
from vaejax.tasks.vae import NET, vae_task
from vaejax.training.saved_state import from_items, items_like
from vaejax.training.state import Net, TrainState, Window, shapes


class Final(NamedTuple):
    """The last checkpoint of a run.

    Attributes:
      state: the training state.
      net: the only network of `state`.
      window: the sums over the updates since the last log.
    """

    state: TrainState
    net: Net
    window: Window


def final_state(workdir: pathlib.Path, config: Config) -> Final:
    """Restores and verifies the last checkpoint in `workdir`."""
    checkpoints = Checkpoints(workdir / "checkpoints", read_only=True)
    like = shapes(vae_task(config))
    shardings = state_shardings(make_mesh(config.train.batch_size), like)
    last = checkpoints.steps()[-1]
    items = checkpoints.restore(last, *items_like(checkpoints, last, like, shardings))
    checkpoints.verify(last, items)
    checkpoints.close()
    state, window = from_items(jax.device_get(items))
    return Final(state, state.nets[NET], window)


def with_params(state: TrainState, change: Callable[[Any], Any]) -> TrainState:
    """Returns `state` with `change` applied to each parameter array of its only network."""
    net = state.nets[NET]
    return state.replace(nets={NET: net.replace(params=jax.tree.map(change, net.params))})


def assert_same(one: PyTree, two: PyTree) -> None:
    """Asserts that each array in `one` equals the array at the same path in `two`."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(one):
        other = dict(jax.tree_util.tree_leaves_with_path(two))[path]
        np.testing.assert_array_equal(leaf, other, err_msg=jax.tree_util.keystr(path))
