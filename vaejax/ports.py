"""The two fixed ports of process 0, where JAX finds the processes of a run by itself.

JAX's coordinator has JAX_COORDINATOR_PORT; the lines by which vaejax's processes meet have the next
one.
"""

import os
import socket

from vaejax.errors import UserError

VARIABLE = "JAX_COORDINATOR_PORT"
# Firewalls of Cloud TPU have this one open, and not the 8482 that JAX takes since 0.8.1
# (https://github.com/jax-ml/jax/issues/35905).
DEFAULT = 8476
# By which SLURM, Kubernetes and Cloud TPU count processes, before JAX is asked.
_INDEX_VARIABLES = ("SLURM_PROCID", "JOB_COMPLETION_INDEX", "TPU_WORKER_ID")


def choose_port() -> int:
    """The port for JAX's coordinator, of which JAX is told; where this is process 0, it is free.

    Raises:
      UserError: the environment names no port, or this one or the next is taken.
    """
    words = os.environ.get(VARIABLE) or str(DEFAULT)
    if not (words.isascii() and words.isdigit() and 0 < int(words) < 2**16 - 1):
        raise UserError(f"{VARIABLE}={words} is no port; set it to a number from 1 to 65534")
    os.environ[VARIABLE] = words
    # Where nobody has counted them, each has a machine to itself.
    if all(os.environ.get(name, "0") == "0" for name in _INDEX_VARIABLES):
        # JAX would die of a port that is taken, without a word.
        _check_free(int(words), int(words) + 1)
    return int(words)


def own_address() -> str:
    """The IPv4 address of this machine that others see."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # Nothing is sent: the kernel only chooses the interface that leads outside.
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.1"
        return probe.getsockname()[0]


def _check_free(*ports: int) -> None:
    """Raises UserError for a port of this machine that cannot be opened."""
    for port in ports:
        try:
            socket.create_server(("", port)).close()
        except OSError as error:
            raise UserError(
                f"port {port} of {socket.gethostname()} cannot be opened ({error.strerror}); end "
                f"what has it, or set {VARIABLE} to another on all machines (that port and the "
                "next one are used)"
            ) from error
