"""Runs the programs of `benchmarks/` as a user does."""

import os
import subprocess

from commands import COMMAND_TIMEOUT, REPOSITORY, without_tensorflow
from forked import Forked


def benchmark(name: str, *flags: str) -> subprocess.CompletedProcess:
    """Runs `python -m benchmarks.NAME FLAGS` in the repository and waits for its end.

    The processes that it starts have no TensorFlow, whose import takes half of their start.
    """
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "1", **without_tensorflow()}
    process = Forked(f"benchmarks.{name}", flags, environment, REPOSITORY)
    stdout, stderr = process.communicate(timeout=COMMAND_TIMEOUT)
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)
