"""Devices and what lies where: one mesh, the batch split over it, the state on every device."""

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from vaejax.errors import UserError

DATA_AXIS = "data"


def make_mesh(batch_size: int) -> Mesh:
    """A mesh of all devices along the batch.

    Raises:
      UserError: the batch does not divide among the devices.
    """
    count = jax.device_count()
    if batch_size % count:
        raise UserError(
            f"config.train.batch_size={batch_size} does not divide among {count} devices; set it to"
            f" a multiple of {count}, such as {-(-batch_size // count) * count}"
        )
    return jax.make_mesh((count,), (DATA_AXIS,), axis_types=(AxisType.Auto,))


def round_up(batch_size: int, mesh: Mesh) -> int:
    """The smallest batch from `batch_size` on that divides among the devices of `mesh`."""
    return -(-batch_size // mesh.size) * mesh.size


def single_device_mesh() -> Mesh:
    """A mesh of the first device of this process."""
    return jax.make_mesh(
        (1,), (DATA_AXIS,), axis_types=(AxisType.Auto,), devices=jax.local_devices()[:1]
    )


def replicated(mesh: Mesh) -> NamedSharding:
    """Everything on every device."""
    return NamedSharding(mesh, PartitionSpec())


def split_batch(mesh: Mesh, leading_axes: int = 0) -> NamedSharding:
    """The batch axis, after `leading_axes` others, split over the devices."""
    return NamedSharding(mesh, PartitionSpec(*[None] * leading_axes, DATA_AXIS))


def to_devices(batch: dict[str, np.ndarray], sharding: NamedSharding) -> dict[str, jax.Array]:
    """This process's part of a batch as global arrays."""
    return {
        name: jax.make_array_from_process_local_data(sharding, array)
        for name, array in batch.items()
    }


def free_device_memory() -> int | None:
    """Bytes free on the fullest device of this process; None where nobody counts them (CPUs)."""
    free = [
        stats["bytes_limit"] - stats["bytes_in_use"]
        for stats in (device.memory_stats() for device in jax.local_devices())
        if stats and "bytes_limit" in stats
    ]
    return min(free, default=None)
