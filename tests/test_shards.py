"""A ladder with sharded parameters learns the same as with replicated ones."""

import jax
import numpy as np
import pytest
from ladders import pictures
from tiny import LADDER, tiny_ladder

from vaejax.runtime.mesh import make_mesh
from vaejax.runtime.shards import state_shardings
from vaejax.tasks.vae import NET, vae_task
from vaejax.training.state import Net, initial_carry, shapes
from vaejax.training.step import make_train_step


def trained(fsdp: int, *, remat: bool) -> tuple[list[float], Net]:
    """Trains a ladder for three updates on two devices; returns the losses and the network."""
    config = tiny_ladder(model={**LADDER["model"], "remat": remat}, train={"batch_size": 4})
    task, mesh = vae_task(config), make_mesh(4, fsdp)
    place = state_shardings(mesh, shapes(task))
    carry = jax.jit(lambda key: initial_carry(task, key), out_shardings=place)(jax.random.key(0))
    train_step, losses = make_train_step(task, config.train, mesh), []
    for _ in range(3):
        carry, loss = train_step(carry, {"image": pictures(config, 4)[None]})
        losses.append(float(loss))
    return losses, carry.state.nets[NET]


@pytest.fixture(scope="module")
def replicated() -> tuple[list[float], Net]:
    return trained(1, remat=False)


@pytest.mark.slow
@pytest.mark.parametrize("remat", [True, False])
def test_a_ladder_with_sharded_parameters_learns_the_same(remat, replicated):
    losses, net = replicated
    sharded_losses, sharded = trained(2, remat=remat)
    np.testing.assert_allclose(sharded_losses, losses, rtol=1e-6)
    kernels = [leaf for leaf in jax.tree.leaves(sharded.params) if not leaf.is_fully_replicated]
    assert len(kernels) > 10
    assert all(leaf.addressable_data(0).size == leaf.size // 2 for leaf in kernels)
    for one, other in zip(jax.tree.leaves(sharded), jax.tree.leaves(net), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
