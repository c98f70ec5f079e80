"""How programs are compiled: each device's options, and where compiled programs are kept."""

import functools
import glob
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, SingleDeviceSharding

from vaejax.config import cache_root

# By JAX's name for the device, or else for its platform; passed at compile time, because XLA_FLAGS
# with an unknown flag ends the process. TPUs have none: with more vector memory for one operation
# (xla_tpu_scoped_vmem_limit_kib=65472 on v5p, 98304 on v6e), from which other models gain, the step
# of configs/celeba.py moves 1.3 and 1.5 times the bytes of main memory (libtpu 0.0.42).
COMPILER_OPTIONS = {
    # XLA hands convolutions to YNNPACK, whose kernels take 1.4 times as long for the training
    # step as XLA's older ones (jaxlib 0.10.2 and 0.12.0.1, x86-64). This keeps the rest of the
    # default: matrix products and reductions.
    "cpu": {
        "xla_cpu_experimental_ynn_fusion_type": (
            "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE"
        )
    },
}


def jit(function: Callable, *, mesh: Mesh | None = None, **settings: Any) -> Callable:
    """`jax.jit` with the options of the devices of `mesh`, or of those JAX computes on."""
    device = (mesh.local_devices or mesh.devices.flat)[0] if mesh else jax.local_devices()[0]
    return jax.jit(function, compiler_options=_options(device), **settings)


def precise(function: Callable) -> Callable:
    """`function`, in whose float32 products accelerators round nothing, as they otherwise do."""

    @functools.wraps(function)
    def precisely(*inputs: Any) -> Any:
        with jax.default_matmul_precision("highest"):
            return function(*inputs)

    return precisely


@functools.cache
def _options(device: jax.Device) -> dict[str, str] | None:
    """The device's options; None where there are none, or this compiler does not know them."""
    options = COMPILER_OPTIONS.get(device.device_kind, COMPILER_OPTIONS.get(device.platform))
    if options is None:
        return None
    scalar = jax.ShapeDtypeStruct((), jnp.float32, sharding=SingleDeviceSharding(device))
    trial = jax.jit(lambda x: x, compiler_options=options).trace(scalar)
    try:
        trial.lower(lowering_platforms=(device.platform,)).compile()
    except jax.errors.JaxRuntimeError:
        return None
    return options


def keep_compiled_programs() -> None:
    """Compiled programs stay on disk from one run to the next, unless the user says where."""
    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", str(cache_root() / "xla"))
    _replace_torn_programs(Path(jax.config.jax_compilation_cache_dir))


# What JAX says of a program on disk that it cannot read, or could not write wholly.
_TORN = re.compile(r"Error (reading|writing) persistent compilation cache entry for '([^']+)'")


def _replace_torn_programs(directory: Path) -> None:
    """From here on a torn program is removed, so that the one compiled in its place is kept.

    JAX writes programs in place and never over what is there: of one that a kill or a full disk
    has cut off it would complain at every start, and compile it anew each time.
    """
    show = warnings.showwarning

    def show_or_remove(message: Warning | str, *where: Any, **more: Any) -> None:
        torn = _TORN.match(str(message))
        if torn:
            # JAX says no more than its name; others of that name are made again as well.
            for path in directory.glob(f"{glob.escape(torn[2])}-*"):
                path.unlink(missing_ok=True)
        if not torn or torn[1] == "writing":
            show(message, *where, **more)

    warnings.showwarning = show_or_remove
