"""How programs are compiled: each platform's options, and where compiled programs are kept."""

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh

from vaejax.config import cache_root

# By platform; passed at compile time, because XLA_FLAGS with an unknown flag ends the process.
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
    """`jax.jit` with the options of the platform of `mesh`, or of the one JAX computes on."""
    platform = mesh.devices.flat[0].platform if mesh else jax.default_backend()
    return jax.jit(function, compiler_options=_options(platform), **settings)


@functools.cache
def _options(platform: str) -> dict[str, str] | None:
    """The platform's options; None where there are none, or this JAX does not know them."""
    options = COMPILER_OPTIONS.get(platform)
    try:
        jax.jit(lambda x: x, compiler_options=options).lower(0.0).compile()
    except jax.errors.JaxRuntimeError:
        return None
    return options


def keep_compiled_programs() -> None:
    """Compiled programs stay on disk from one run to the next, unless the user says where."""
    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", str(cache_root() / "xla"))
