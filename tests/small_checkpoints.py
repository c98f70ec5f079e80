"""Saves a checkpoint of two small items, and reads it again."""

import pathlib
from contextlib import closing
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from vaejax.records.checkpoints import Checkpoints
from vaejax.records.ranking import Ranking
from vaejax.runtime.mesh import make_mesh
from vaejax.runtime.shards import state_shardings

STEP = 3
BEST_BY = Ranking("elbo_bits_per_dim")
ITEMS = {
    "train": {"step": np.int32(3)},
    "model": {"layer": {"kernel": np.linspace(-1, 1, 60, dtype=np.float32).reshape(5, 12)}},
}
META = {"config": {"train": {"steps": 3}}, "evaluation_due": False}


def save(
    checkpoints: Checkpoints, meta: dict = META, step: int = STEP, bits_per_dim: float = 5.0
) -> None:
    """Starts to save `ITEMS`."""
    items = jax.tree.map(jnp.asarray, ITEMS)
    checkpoints.save(step, items, meta, {BEST_BY.metric: bits_per_dim})


def read(directory: pathlib.Path, like: PyTree = ITEMS) -> tuple[dict[str, PyTree], dict[str, Any]]:
    """Restores and verifies the checkpoint of `STEP`; returns its items and metadata."""
    shardings = state_shardings(make_mesh(1, devices=jax.devices()[:1]), like)
    with closing(Checkpoints(directory, read_only=True)) as checkpoints:
        items = checkpoints.restore(STEP, like, shardings)
        checkpoints.verify(STEP, items)
        return items, checkpoints.meta(STEP)
