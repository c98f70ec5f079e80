"""Makes the device mesh, places arrays on it, and gathers them from it."""

import os
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from vaejax.errors import UserError, short_reason
from vaejax.runtime.chips import without_tpu_complaints

# The batch is split over both axes. Each row of devices along FSDP_AXIS holds one copy of the
# state in shards; with one device in a row, every device holds a whole copy.
DATA_AXIS, FSDP_AXIS = "data", "fsdp"


def check_devices() -> None:
    """Initialises JAX's devices.

    Raises:
      UserError: there is no usable device, for instance because `JAX_PLATFORMS` names a kind that
        this machine lacks.
    """
    try:
        with without_tpu_complaints():
            jax.devices()
    # JAX raises whatever its plugins raise; an AssertionError if a plugin is missing.
    except Exception as error:
        # JAX adds its settings when it is imported, so its type stubs lack them.
        set_here = jax.config.jax_platforms  # type: ignore[attr-defined]
        named = os.environ.get("JAX_PLATFORMS") or set_here
        wanted = f"JAX_PLATFORMS={named}" if named else "JAX"
        raise UserError(
            f"{wanted} finds no device that can be used ({short_reason(error)}); unset "
            "JAX_PLATFORMS, set it to cpu, or install what it needs: pip install "
            "'vaejax[cuda]' or 'vaejax[tpu]'"
        ) from error


def make_mesh(
    batch_size: int,
    fsdp: int = 1,
    devices: Sequence[jax.Device] | None = None,
    *,
    accumulate: int = 1,
) -> Mesh:
    """Makes a mesh [data, fsdp] of all devices, or of `devices`.

    Args:
      batch_size: examples in a batch, which is split over the devices.
      fsdp: number of devices that share one copy of the state.
      devices: devices to use instead of all.
      accumulate: number of parts of the batch that are computed one after the other; each is split
        over all devices.

    Raises:
      UserError: the batch does not divide among the devices, or the devices of a slice do not
        divide into groups of `fsdp`.
    """
    # A process's rows of the batch, and the devices of one slice, must be neighbours: copies of
    # the state are split within a slice, whose network is the fast one.
    devices = sorted(
        jax.devices() if devices is None else devices,
        key=lambda device: (_slice(device), device.process_index, device.id),
    )
    count, slices = len(devices), len({_slice(device) for device in devices})
    if batch_size % (unit := count * accumulate):
        parts = f" in config.train.accumulate={accumulate} parts" if accumulate > 1 else ""
        raise UserError(
            f"config.train.batch_size={batch_size} does not divide among {count} devices{parts}; "
            f"set it to a multiple of {unit}, such as {-(-batch_size // unit) * unit}"
        )
    if (count // slices) % fsdp:
        within = f"the {count // slices} devices of a slice" if slices > 1 else f"{count} devices"
        raise UserError(
            f"config.train.fsdp={fsdp} does not divide {within}; set it to 1 or to a divisor"
        )
    grid = np.array(devices).reshape(count // fsdp, fsdp)
    return Mesh(grid, (DATA_AXIS, FSDP_AXIS), axis_types=(AxisType.Auto, AxisType.Auto))


def _slice(device: jax.Device) -> int:
    """Returns the index of a device's TPU slice; 0 if there are no slices."""
    return getattr(device, "slice_index", 0) or 0


def single_device_mesh() -> Mesh:
    """Makes a mesh of the first device of this process."""
    return make_mesh(1, devices=jax.local_devices()[:1])


def round_up(batch_size: int, mesh: Mesh) -> int:
    """Rounds a batch size up to a multiple of the number of devices of `mesh`."""
    return -(-batch_size // mesh.size) * mesh.size


def replicated(mesh: Mesh | AbstractMesh) -> NamedSharding:
    """Returns the sharding of an array that is whole on every device."""
    return NamedSharding(mesh, PartitionSpec())


def split_batch(mesh: Mesh, leading_axes: int = 0) -> NamedSharding:
    """Returns the sharding that splits axis `leading_axes`, the batch, over all devices."""
    spec = PartitionSpec(*[None] * leading_axes, (DATA_AXIS, FSDP_AXIS))
    return NamedSharding(mesh, spec)


def to_devices(batch: dict[str, np.ndarray], sharding: NamedSharding) -> dict[str, jax.Array]:
    """Makes global arrays from each process's part of a batch, given on the host."""
    return {
        name: jax.make_array_from_process_local_data(sharding, array)
        for name, array in batch.items()
    }


def to_every_device(array: np.ndarray, mesh: Mesh) -> jax.Array:
    """Copies an array that every process has to every device of `mesh`."""
    return jax.make_array_from_callback(array.shape, replicated(mesh), lambda index: array[index])


def gathered(tree: PyTree, mesh: Mesh) -> PyTree:
    """Gathers the arrays of a tree on every device; all processes must call it together."""
    return jax.jit(_same, out_shardings=replicated(mesh))(tree)


def _same(tree: PyTree) -> PyTree:
    """Returns `tree`. JAX recognises a named function, and compiles it once."""
    return tree


def own_copy(tree: PyTree) -> PyTree:
    """Returns the copies of replicated arrays on this process's first device."""
    return jax.tree.map(lambda leaf: leaf.addressable_data(0), tree)


class SharedFlag:
    """A flag that any process may raise; all learn of it at the same place of their loops.

    All processes must call `ask` and `poll` in the same order. Once raised, the flag stays raised.
    """

    def __init__(self, mesh: Mesh):
        """Starts with the flag lowered on every process."""
        self._sharding, self._own = split_batch(mesh), len(mesh.local_devices)
        self._any = jax.jit(jnp.any, out_shardings=replicated(mesh))
        self._asked, self._raised = None, False

    def ask(self, raised: bool) -> bool:
        """Returns whether any process has raised the flag; waits for all of them.

        Args:
          raised: whether this process raises it.
        """
        if jax.process_count() == 1:
            self._raised |= raised
        else:
            self.poll(raised)
            self._raised |= bool(self._asked)
        return self._raised

    def poll(self, raised: bool) -> bool:
        """Returns the answer to the previous call, without waiting for the other processes.

        A single process gets the present answer.

        Args:
          raised: whether this process raises the flag.
        """
        if jax.process_count() == 1:
            return self.ask(raised)
        self._raised |= self._asked is not None and bool(self._asked)
        flags = np.full(self._own, raised)
        self._asked = self._any(jax.make_array_from_process_local_data(self._sharding, flags))
        return self._raised


def device_memory() -> int | None:
    """Returns the bytes of this process's smallest device; None where JAX knows none (CPUs)."""
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    return min((one["bytes_limit"] for one in stats if "bytes_limit" in one), default=None)
