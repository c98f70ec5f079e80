"""A ladder with sharded parameters learns the same as with replicated ones."""

import jax
import numpy as np
import pytest
from ladders import pictures
from tiny import tiny_ladder

from vaejax.runtime.mesh import make_mesh
from vaejax.runtime.shards import state_shardings
from vaejax.tasks.vae import NET, vae_task
from vaejax.training.state import Net, initial_carry, shapes
from vaejax.training.step import make_train_step


def trained(fsdp: int, **model: bool) -> tuple[list[float], Net]:
    """Trains a ladder for three updates on two devices; returns the losses and the network."""
    config = tiny_ladder(
        model={"widths": (4, 6, 6), "blocks": (2, 0, 1), **model}, train={"batch_size": 4}
    )
    task, mesh = vae_task(config), make_mesh(4, fsdp)
    place = state_shardings(mesh, shapes(task))
    carry = jax.jit(lambda key: initial_carry(task, key), out_shardings=place)(jax.random.key(0))
    train_step, losses = make_train_step(task, config.train, mesh), []
    for _ in range(3):
        carry, loss = train_step(carry, {"image": pictures(config, 4)[None]})
        losses.append(float(loss))
    return losses, carry.state.nets[NET]


@pytest.mark.slow
@pytest.mark.parametrize("looped", [True, False])
def test_the_blocks_of_a_ladder_gather_their_own_shards(looped):
    losses, whole = trained(1, scan=looped, remat=looped)
    found, shards = trained(2, scan=looped, remat=looped)
    np.testing.assert_allclose(found, losses, rtol=1e-6)
    kernels = [leaf for leaf in jax.tree.leaves(shards.params) if not leaf.is_fully_replicated]
    assert len(kernels) > 10
    assert all(leaf.addressable_data(0).size == leaf.size // 2 for leaf in kernels)
    for one, other in zip(jax.tree.leaves(shards), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
