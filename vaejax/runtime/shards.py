"""Sharding of the state: which arrays are split among devices, how parameters are gathered."""

import functools
from contextlib import AbstractContextManager

import jax
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, PyTree

from vaejax.runtime.mesh import FSDP_AXIS, replicated

# Axes along which an array may be split, by the last name of its path in the state; the first that
# divides is. A parameter, its average and its moments share that name. All other arrays are small,
# and replicated on every device.
SHARDED_AXES: dict[str, tuple[int, ...]] = {"kernel": (-1, -2)}
# Prefixes of the first name in the path of a stack of blocks, in a network's parameters: each block
# gathers its shards where it uses them (`gathered_block`). All others are gathered at once.
BLOCK_STACKS = ("bottom_up", "top_down")

# The state may take this share of a device's memory; gradients and activations need the rest.
_STATE_SHARE = 0.4


def fitting_fsdp(state: PyTree, memory: int | None, devices: int) -> int:
    """Returns the fewest devices that must share one copy of `state` for it to fit.

    It fits in 40% of a device's memory. If it never does, all `devices` share it.

    Args:
      state: arrays or shapes.
      memory: bytes of one device; None if unknown, and then every device has a copy.
      devices: number of devices among which a copy may be split, those of one process.
    """
    if memory is None:
        return 1
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    divisors = [fsdp for fsdp in range(1, devices + 1) if devices % fsdp == 0]
    return next((fsdp for fsdp in divisors if size / fsdp <= _STATE_SHARE * memory), devices)


def state_shardings(mesh: Mesh | AbstractMesh, state: PyTree) -> PyTree:
    """Returns the sharding of each array of a state or of parameters.

    Args:
      mesh: mesh of the devices, [data, fsdp].
      state: arrays or shapes, whose names decide by `SHARDED_AXES` which ones are split.
    """
    fsdp = mesh.shape[FSDP_AXIS]

    def place(path, leaf) -> NamedSharding:
        axes = SHARDED_AXES.get(getattr(path[-1], "key", ""), ())
        axis = next((axis for axis in axes if leaf.shape[axis] % fsdp == 0), None)
        if fsdp == 1 or axis is None:
            return replicated(mesh)
        spec: list[str | None] = [None] * len(leaf.shape)
        spec[axis] = FSDP_AXIS
        return NamedSharding(mesh, PartitionSpec(*spec))

    return jax.tree_util.tree_map_with_path(place, state)


def gathered_params(params: PyTree, mesh: Mesh) -> PyTree:
    """Gathers a network's parameters on every device, except those of `BLOCK_STACKS`."""

    def gather(path: tuple, param: Array) -> Array:
        if str(getattr(path[0], "key", "")).startswith(BLOCK_STACKS):
            return param
        return jax.lax.with_sharding_constraint(param, replicated(mesh))

    return jax.tree_util.tree_map_with_path(gather, params)


def computing_on(mesh: Mesh) -> AbstractContextManager:
    """Returns a context for tracing a program, in which its blocks know the mesh they run on."""
    return jax.sharding.use_abstract_mesh(mesh.abstract_mesh)


def blocks_are_sharded() -> bool:
    """Whether the parameters of blocks are sharded, on the mesh of `computing_on`."""
    return jax.sharding.get_abstract_mesh().shape.get(FSDP_AXIS, 1) > 1


def gathered_block(params: PyTree) -> PyTree:
    """Gathers the parameters of one block on every device; their gradients are sharded again.

    A block that is computed again for its gradient (`jax.checkpoint`) also gathers again, so that
    no more than one block's parameters are whole at a time (ZeRO stage 3, Rajbhandari et al. 2020;
    fully sharded data parallel, Zhao et al. 2023).
    """
    shards = state_shardings(jax.sharding.get_abstract_mesh(), params)
    return jax.tree.map(_gathered, params, shards)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _gathered(param: Array, shards: NamedSharding) -> Array:
    return jax.lax.with_sharding_constraint(param, replicated(shards.mesh))


def _gathered_forward(param: Array, shards: NamedSharding) -> tuple[Array, None]:
    return _gathered(param, shards), None


def _gathered_backward(shards: NamedSharding, _: None, gradient: Array) -> tuple[Array]:
    # Summed whole first: otherwise the compiler computes each product of the gradient in shards,
    # and exchanges the parts of its factors one by one (docs/notes/sharded_parameters.md).
    whole = jax.lax.with_sharding_constraint(gradient, replicated(shards.mesh))
    return (jax.lax.with_sharding_constraint(whole, shards),)


_gathered.defvjp(_gathered_forward, _gathered_backward)
