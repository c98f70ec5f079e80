"""Chooses the two ports of process 0 for runs whose processes JAX finds by itself.

JAX's coordinator has JAX_COORDINATOR_PORT; the connections between vaejax's processes have
VAEJAX_PORT, by default the next one.
"""

import os
import socket

from vaejax.errors import UserError

JAX_VARIABLE, OWN_VARIABLE = "JAX_COORDINATOR_PORT", "VAEJAX_PORT"
# Firewalls of Cloud TPU leave this port open, but not 8482, which JAX uses since 0.8.1
# (https://github.com/jax-ml/jax/issues/35905).
DEFAULT = 8476
# The index of a process in SLURM, Kubernetes and Cloud TPU, which is known before JAX starts.
_INDEX_VARIABLES = ("SLURM_PROCID", "JOB_COMPLETION_INDEX", "TPU_WORKER_ID")


def choose_port() -> int:
    """Sets the port of JAX's coordinator in the environment, and returns that of vaejax.

    Raises:
      UserError: a variable of the environment holds no port number, both hold the same one, or
        process 0 cannot open one.
    """
    jax_port = _from_environment(JAX_VARIABLE, DEFAULT)
    own_port = _from_environment(OWN_VARIABLE, jax_port + 1)
    if own_port == jax_port:
        raise UserError(f"{OWN_VARIABLE}={own_port} is {JAX_VARIABLE} too; set it to another port")
    os.environ[JAX_VARIABLE] = str(jax_port)
    # Only process 0 opens them. Without an index in the environment, each process has a machine to
    # itself.
    if all(os.environ.get(name, "0") == "0" for name in _INDEX_VARIABLES):
        # If the port is taken, JAX would abort without a message.
        _check_free(jax_port, JAX_VARIABLE)
        _check_free(own_port, OWN_VARIABLE)
    return own_port


def own_address() -> str:
    """Returns the IPv4 address by which others see this machine; 127.0.0.1 without a network."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # Nothing is sent: the kernel only chooses the interface that leads outside.
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.1"
        return probe.getsockname()[0]


def is_port(words: str) -> bool:
    """Whether `words` are a number from 1 to 65535."""
    return words.isascii() and words.isdigit() and 0 < int(words) < 2**16


def _from_environment(variable: str, default: int) -> int:
    words = os.environ.get(variable) or str(default)
    if not is_port(words):
        raise UserError(f"{variable}={words} is no port; set it to a number from 1 to 65535")
    return int(words)


def _check_free(port: int, variable: str) -> None:
    """Raises UserError if a port of this machine cannot be opened."""
    try:
        socket.create_server(("", port)).close()
    except OSError as error:
        raise UserError(
            f"port {port} of {socket.gethostname()} cannot be opened ({error.strerror}); end what "
            f"has it, or set {variable} to another port on all machines"
        ) from error
