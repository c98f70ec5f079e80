"""Peak rates of accelerators, as their makers state them, and TPU topologies by name."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies

from vaejax.errors import UserError


class Chip(NamedTuple):
    """The memory and the peak rates of one chip, which bound a program.

    Attributes:
      name: its name in a topology, such as `v5e`; for GPUs a short name.
      flops: bfloat16 floating-point operations per second, dense.
      memory: bytes of its main memory (HBM).
      bandwidth: bytes per second to and from its main memory.
      links: bytes per second to its neighbours, one way, over all of its links.
      network: bytes per second to other slices or machines, one way.
    """

    name: str
    flops: float
    memory: int
    bandwidth: float
    links: float
    network: float


# Keys are JAX's device kinds. TPUs: cloud.google.com/tpu/docs/v4, v5e, v5p, v6e (2026-06; links
# are half of "bidirectional ICI bandwidth", networks per chip of a pod). GPUs: the data sheets of
# the SXM boards, dense; links are half of NVLink's total; network one 400 or 200 Gbit/s card each.
CHIPS = {
    "TPU v4": Chip("v4", 275e12, 32 * 2**30, 1228e9, 300e9, 6.25e9),
    "TPU v5 lite": Chip("v5e", 197e12, 16 * 2**30, 819e9, 200e9, 3.125e9),
    "TPU v5": Chip("v5p", 459e12, 95 * 2**30, 2765e9, 600e9, 6.25e9),
    "TPU v6 lite": Chip("v6e", 918e12, 32 * 2**30, 1640 * 10**9, 400e9, 12.5e9),
    "NVIDIA A100-SXM4-40GB": Chip("A100 40 GB", 312e12, 40 * 10**9, 1555e9, 300e9, 25e9),
    "NVIDIA A100-SXM4-80GB": Chip("A100 80 GB", 312e12, 80 * 10**9, 2039e9, 300e9, 25e9),
    "NVIDIA H100 80GB HBM3": Chip("H100", 989.5e12, 80 * 10**9, 3350e9, 450e9, 50e9),
    "NVIDIA H200": Chip("H200", 989.5e12, 141 * 10**9, 4800e9, 450e9, 50e9),
}

# Environment variables that keep libtpu from looking for a TPU, from locking it, and from
# complaining that there is none.
_NO_TPU_HERE = {
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
}

_TOPOLOGY = re.compile(r"(v4|v5e|v5p|v6e):(\d+(?:x\d+)+)(?:\*([1-9]\d*))?")
_EXAMPLES = "v5e:2x2, v5e:16x16, v6e:4x4, v5p:2x2x2, v4:2x2x1, or v5e:16x16*4 for four slices"


def topology_devices(name: str) -> list[jax.Device]:
    """Returns the chips of a TPU topology, to compile for; they need not be attached.

    Args:
      name: kind and shape, and the number of slices if there are several: `v5e:16x16*4`.

    Raises:
      UserError: there is no such topology, or the TPU compiler cannot be used here.
    """
    match = _TOPOLOGY.fullmatch(name)
    if not match:
        raise UserError(f"{name!r} is no TPU topology; name one such as {_EXAMPLES}")
    kind, shape, slices = match.groups()
    options: dict[str, Any] = {}
    if set(shape.split("x")) == {"1"}:
        options["chips_per_host_bounds"] = (1, 1, 1)
    if kind == "v4":
        options["chip_config_name"] = "megacore"  # otherwise each of its two cores is a device
    if slices:
        options["num_slices"] = int(slices)
    _settle_without_tpu()
    try:
        return topologies.get_topology_desc(f"{kind}:{shape}", platform="tpu", **options).devices
    except (RuntimeError, ValueError) as error:
        why = str(error).splitlines()[0]
        if "opolog" in why:
            raise UserError(
                f"{name} is no TPU topology ({why}); name one such as {_EXAMPLES}"
            ) from error
        raise UserError(
            f"the TPU's compiler cannot be used ({why}); install it with pip install -e '.[tpu]'"
        ) from error


@contextmanager
def without_tpu_complaints() -> Iterator[None]:
    """Keeps libtpu from complaining where it is installed, but no TPU is attached.

    The block must contain the first use of devices. Afterwards the environment is as before.
    """
    before = dict(os.environ)
    # JAX sets this when it is imported and sees no TPU.
    if os.environ.get("TPU_SKIP_MDS_QUERY") == "1":
        _settle_without_tpu()
    try:
        yield
    finally:
        for variable in _NO_TPU_HERE.keys() - before.keys():
            os.environ.pop(variable, None)


def _settle_without_tpu() -> None:
    for variable, value in _NO_TPU_HERE.items():
        os.environ.setdefault(variable, value)


def chip_of(device: jax.Device) -> Chip | None:
    """Returns the peak rates of a device's chip; None if `CHIPS` has none, as for CPUs.

    The memory of a device that is attached is what JAX may use of it: on GPUs three quarters by
    default (https://docs.jax.dev/en/latest/gpu_memory_allocation.html).
    """
    chip = CHIPS.get(device.device_kind)
    if chip and device in jax.local_devices():
        limit = (device.memory_stats() or {}).get("bytes_limit", chip.memory)
        return chip._replace(memory=limit)
    return chip
