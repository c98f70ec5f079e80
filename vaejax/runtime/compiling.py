"""How programs are compiled: each device's options and the precision of products."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, SingleDeviceSharding

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


def jit(function: Callable, *, mesh: Mesh | None = None, **settings: Any) -> jax.stages.Wrapped:
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
