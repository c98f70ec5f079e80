"""Placement on devices: meshes, rows of a batch, and a sharded state."""

import importlib.util
import json
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
from commands import COMMAND_TIMEOUT

from vaejax.errors import UserError
from vaejax.runtime.chips import topology_devices
from vaejax.runtime.mesh import make_mesh, split_batch
from vaejax.runtime.shards import state_shardings

HERE = pathlib.Path(__file__).parent
# Computes the shardings of a model for 256 x 256 pictures with 103 M parameters, from shapes alone.
PLACE_A_LARGE_STATE = """
import json
import math
import jax
from tiny import tiny
from vaejax.runtime.mesh import make_mesh
from vaejax.runtime.shards import state_shardings
from vaejax.tasks.vae import vae_task
from vaejax.training.state import shapes
config = tiny(
    data={"image_size": (256, 256)}, prior={"layers": 8, "width": 512},
    model={"widths": (64, 128, 256, 512, 512), "blocks": (1, 2, 2, 2, 2), "latent_size": 512},
)
carry = shapes(vae_task(config))
places = jax.tree.leaves(state_shardings(make_mesh(8, fsdp=8), carry))
leaves = jax.tree_util.tree_leaves_with_path(carry)

def size(shape, leaf):
    return math.prod(shape) * leaf.dtype.itemsize

print(json.dumps({
    "parameters": carry.state.parameters(),
    "whole": sum(size(leaf.shape, leaf) for _, leaf in leaves),
    "held": sum(size(place.shard_shape(leaf.shape), leaf)
                for (_, leaf), place in zip(leaves, places, strict=True)),
    "whole_on_each": sum(size(leaf.shape, leaf) for path, leaf in leaves
                         if getattr(path[-1], "key", None) != "kernel"),
}))
"""


def test_eight_devices_hold_an_eighth_each():
    done = subprocess.run(
        [sys.executable, "-c", "import jax; jax.config.update('jax_num_cpu_devices', 8)\n"
         + PLACE_A_LARGE_STATE],
        capture_output=True, text=True, cwd=HERE, timeout=COMMAND_TIMEOUT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    sizes = json.loads(done.stdout)
    assert sizes["parameters"] > 100e6
    # Biases and counters are replicated, and so is a kernel without an axis that 8 divides.
    remainder = sizes["held"] - sizes["whole"] / 8
    assert 0 <= remainder < sizes["whole_on_each"] + 0.001 * sizes["whole"]
    assert sizes["whole_on_each"] < 0.005 * sizes["whole"]


def test_kernels_are_split_by_outputs_else_by_inputs():
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


@pytest.mark.parametrize("fsdp", [1, 2])
def test_rows_of_a_batch_follow_the_devices(fsdp):
    """Device i has part i of the batch on any mesh, so that each process reads adjacent rows."""
    mesh = make_mesh(6, fsdp)
    rows = split_batch(mesh).devices_indices_map((6,))
    starts = [rows[device][0].start or 0 for device in sorted(jax.devices(), key=lambda d: d.id)]
    assert starts == sorted(starts) and len(set(starts)) == len(starts)


@pytest.mark.parametrize(
    ("batch_size", "fsdp", "accumulate", "words"),
    [
        (3, 1, 1, "such as 4"),
        (6, 4, 1, "config.train.fsdp=4 does not divide 2 devices"),
        (12, 1, 4, "config.train.accumulate=4 parts; set it to a multiple of 8, such as 16"),
    ],
)
def test_what_does_not_divide_is_named(batch_size, fsdp, accumulate, words):
    with pytest.raises(UserError, match=words):
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
