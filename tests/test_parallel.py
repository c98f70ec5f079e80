"""Placement on devices: meshes, rows of a batch, and a sharded state."""

import importlib.util
import math

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh
from tiny import tiny

from vaejax.errors import UserError
from vaejax.runtime.chips import topology_devices
from vaejax.runtime.mesh import DATA_AXIS, FSDP_AXIS, make_mesh, split_batch
from vaejax.runtime.shards import fitting_fsdp, state_shardings
from vaejax.tasks.vae import vae_task
from vaejax.training.state import shapes


def bytes_of(shape: tuple[int, ...], leaf: jax.ShapeDtypeStruct) -> int:
    return math.prod(shape) * leaf.dtype.itemsize


def test_each_of_eight_devices_holds_an_eighth_of_a_large_state():
    """Computes the shardings of a model with 103 M parameters from shapes alone."""
    config = tiny(
        data={"image_size": (256, 256)},
        prior={"layers": 8, "width": 512},
        model={
            "widths": (64, 128, 256, 512, 512), "blocks": (1, 2, 2, 2, 2), "latent_size": 512,
        },
    )  # fmt: skip
    carry = shapes(vae_task(config))
    assert carry.state.parameters() > 100e6
    mesh = AbstractMesh((1, 8), (DATA_AXIS, FSDP_AXIS))
    places = jax.tree.leaves(state_shardings(mesh, carry))
    leaves = jax.tree_util.tree_leaves_with_path(carry)
    total = sum(bytes_of(leaf.shape, leaf) for _, leaf in leaves)
    others = sum(
        bytes_of(leaf.shape, leaf)
        for path, leaf in leaves
        if getattr(path[-1], "key", "") != "kernel"
    )
    held = sum(
        bytes_of(place.shard_shape(leaf.shape), leaf)
        for (_, leaf), place in zip(leaves, places, strict=True)
    )
    # Biases and counters are replicated, and so is a kernel without an axis that 8 divides.
    assert others < 0.005 * total
    assert 0 <= held - total / 8 < others + 0.001 * total


def test_kernels_are_split_by_outputs_or_else_by_inputs():
    mesh = make_mesh(2, fsdp=2)
    shape = jax.ShapeDtypeStruct
    state = {
        "even": {"kernel": shape((3, 3, 5, 6), np.float32), "bias": shape((6,), np.float32)},
        "odd": {"kernel": shape((4, 3), np.float32)},
        "neither": {"kernel": shape((3, 5), np.float32)},
        "step": shape((), np.int32),
    }
    placed = state_shardings(mesh, state)
    local = jax.tree.map(lambda leaf, place: place.shard_shape(leaf.shape), state, placed)
    assert local == {
        "even": {"kernel": (3, 3, 5, 3), "bias": (6,)},
        "odd": {"kernel": (2, 3)},
        "neither": {"kernel": (3, 5)},
        "step": (),
    }


@pytest.mark.parametrize(
    ("memory", "devices", "fsdp"),
    [
        (None, 8, 1), (10_000, 8, 1), (9_999, 8, 2), (5_000, 8, 2), (2_500, 8, 4), (3_400, 6, 3),
        (1, 8, 8),
    ],
)  # fmt: skip
def test_as_few_devices_share_a_state_as_fit_in_two_fifths_of_their_memory(memory, devices, fsdp):
    state = {"kernel": jax.ShapeDtypeStruct((500,), np.float32),
             "bias": jax.ShapeDtypeStruct((1_000,), np.float16)}  # fmt: skip
    assert fitting_fsdp(state, memory, devices) == fsdp


@pytest.mark.parametrize("fsdp", [1, 2])
def test_rows_of_a_batch_have_the_order_of_the_devices(fsdp):
    """Device i has part i of the batch on any mesh, so that each process reads adjacent rows."""
    mesh = make_mesh(6, fsdp)
    rows = split_batch(mesh).devices_indices_map((6,))
    starts = [rows[device][0].start or 0 for device in sorted(jax.devices(), key=lambda d: d.id)]
    assert starts == sorted(starts) and len(set(starts)) == len(starts)


@pytest.mark.parametrize(
    ("batch_size", "fsdp", "accumulate", "message"),
    [
        (3, 1, 1, "such as 4"),
        (6, 4, 1, "config.train.fsdp=4 does not divide 2 devices"),
        (12, 1, 4, "config.train.accumulate=4 parts; set it to a multiple of 8, such as 16"),
    ],
)
def test_a_batch_or_group_that_does_not_divide_is_named(batch_size, fsdp, accumulate, message):
    with pytest.raises(UserError, match=message):
        make_mesh(batch_size, fsdp, accumulate=accumulate)


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="no TPU compiler")
def test_copies_of_the_state_stay_within_a_slice():
    """Each row of the mesh has devices of one slice, although they are passed in reverse order."""
    devices = topology_devices("v5e:2x4*2")
    mesh = make_mesh(64, fsdp=8, devices=devices[::-1])
    for row in mesh.devices:
        assert len({device.slice_index for device in row}) == 1
    with pytest.raises(UserError, match="does not divide the 8 devices of a slice"):
        make_mesh(64, fsdp=16, devices=devices)
