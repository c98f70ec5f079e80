"""Restores the training state from the last checkpoint of a run, and compares states."""

import pathlib
from contextlib import closing
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import PyTree

from vaejax.config import Config
from vaejax.records.checkpoints import Checkpoints
from vaejax.runtime.mesh import make_mesh
from vaejax.runtime.shards import state_shardings
from vaejax.tasks.vae import NET, vae_task
from vaejax.training.saved_state import from_items, items_like
from vaejax.training.state import Carry, Net, TrainState, Window, shapes
from vaejax.training.task import Task


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
    """Restores and verifies the last checkpoint of a VAE's run in `workdir`."""
    state, window = last_carry(workdir, vae_task(config), config.train.batch_size)
    return Final(state, state.nets[NET], window)


def last_carry(workdir: pathlib.Path, task: Task, batch_size: int = 8) -> Carry:
    """Restores and verifies the last checkpoint of a run of any task in `workdir`."""
    like = shapes(task)
    shardings = state_shardings(make_mesh(batch_size), like)
    with closing(Checkpoints(workdir / "checkpoints", read_only=True)) as checkpoints:
        last = checkpoints.steps()[-1]
        items = checkpoints.restore(last, *items_like(checkpoints, last, like, shardings))
        checkpoints.verify(last, items)
    return Carry(*from_items(jax.device_get(items)))


def assert_same(one: PyTree, two: PyTree) -> None:
    """Asserts that two trees have arrays at the same paths, equal in type and in every bit."""
    ours, theirs = (dict(jax.tree_util.tree_leaves_with_path(tree)) for tree in (one, two))
    only_one = [jax.tree_util.keystr(path) for path in ours.keys() ^ theirs.keys()]
    assert not only_one, f"only one of the trees has {only_one}"
    for path, leaf in ours.items():
        name = jax.tree_util.keystr(path)
        assert np.asarray(leaf).dtype == np.asarray(theirs[path]).dtype, name
        np.testing.assert_array_equal(leaf, theirs[path], err_msg=name)
