"""What runs left in their last checkpoints, read and compared."""

import pathlib

import jax
import numpy as np
from jaxtyping import PyTree

from vaejax.config import Config
from vaejax.models import build_model
from vaejax.records.checkpoints import Checkpoints
from vaejax.runtime.mesh import make_mesh, state_shardings
from vaejax.training import step


def final_state(workdir: pathlib.Path, config: Config) -> step.TrainState:
    """That training ended with."""
    checkpoints = Checkpoints(workdir / "checkpoints", read_only=True)
    model = build_model(config)
    like = step.state_shapes(model, config)
    shardings = state_shardings(make_mesh(config.train.batch_size), like)
    last = checkpoints.steps()[-1]
    state = checkpoints.restore(last, like, shardings)
    checkpoints.verify(last, state)
    checkpoints.close()
    return jax.device_get(state)


def assert_same(one: PyTree, two: PyTree) -> None:
    """Bit for bit."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(one):
        other = dict(jax.tree_util.tree_leaves_with_path(two))[path]
        np.testing.assert_array_equal(leaf, other, err_msg=jax.tree_util.keystr(path))
