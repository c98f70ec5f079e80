"""How programs are compiled: each device's compiler options, and the precision of products."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, SingleDeviceSharding

# Keys are device kinds or platforms of JAX. Options are passed at compile time, because XLA_FLAGS
# with an unknown flag ends the process. TPUs have none: other models gain from more vector memory
# for one operation (xla_tpu_scoped_vmem_limit_kib=65472 on v5p, 98304 on v6e), but it makes the
# step of configs/celeba.py move 1.3 and 1.5 times as many bytes of main memory (libtpu 0.0.42).
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
    """Applies `jax.jit` with the compiler options of the devices.

    Args:
      function: the function to compile.
      mesh: devices to compile for; by default those of this process.
      **settings: further arguments of `jax.jit`.
    """
    device = (mesh.local_devices or mesh.devices.flat)[0] if mesh else jax.local_devices()[0]
    return jax.jit(function, compiler_options=_options(device), **settings)


def precise(function: Callable) -> Callable:
    """Wraps a function so that accelerators do not round the inputs of its float32 products."""

    @functools.wraps(function)
    def precisely(*inputs: Any) -> Any:
        with jax.default_matmul_precision("highest"):
            return function(*inputs)

    return precisely


@functools.cache
def _options(device: jax.Device) -> dict[str, str] | None:
    """Returns the device's options; None if it has none, or this compiler does not know them."""
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
