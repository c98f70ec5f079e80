"""How programs are compiled: each device's options, and where compiled programs are kept."""

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from filelock import FileLock, Timeout
from jax.sharding import Mesh, SingleDeviceSharding

from vaejax.config import cache_root
from vaejax.errors import UserError

PROGRAMS_BYTES = 2 << 30
"""That compiled programs may take on disk."""

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


def programs_folder() -> Path:
    """Where compiled programs are kept unless the user says where.

    Raises:
      UserError: there is no home directory.
    """
    return cache_root() / "xla"


def keep_compiled_programs() -> None:
    """Compiled programs stay on disk from one run to the next, unless the user says where.

    The least recently used go where they take more than `PROGRAMS_BYTES`.
    """
    # What cannot be read is compiled anew, and what cannot be written will be; nobody is helped.
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache")
    if jax.config.jax_compilation_cache_dir is None:
        with contextlib.suppress(UserError):
            folder = programs_folder()
            jax.config.update("jax_compilation_cache_dir", str(folder))
            # To keep within a limit JAX locks the directory, or else keeps nothing at all.
            if _tidied(folder):
                jax.config.update("jax_compilation_cache_max_size", PROGRAMS_BYTES)


def _tidied(folder: Path) -> bool:
    """Removes programs whose writing did not end; False where the directory cannot be locked.

    JAX notes when a program was used after it has written it, and never repairs one that it
    cannot read; those without a note would also keep it from making room for others.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked_programs(folder):
            for path in folder.glob("*-cache"):
                if not used_file(path).exists() or not path.stat().st_size:
                    path.unlink()
    except Timeout:
        return True  # another process is at it
    except (OSError, NotImplementedError):
        return False
    return True


@contextlib.contextmanager
def locked_programs(folder: Path) -> Iterator[None]:
    """Keeps JAX, in any process, from reading and writing compiled programs.

    Raises:
      Timeout: another process is at it.
      OSError, NotImplementedError: the directory cannot be locked.
    """
    with FileLock(folder / ".lockfile", timeout=1):
        yield


def used_file(program: Path) -> Path:
    """The file beside a compiled program that JAX writes when it uses it."""
    return program.with_name(program.name.removesuffix("-cache") + "-atime")
