"""Helpers that run commands as a user does, and that find free ports for their processes."""

import os
import pathlib
import socket
import subprocess
import sys

from forked import Forked, can_fork

REPOSITORY = pathlib.Path(__file__).parents[1]
PACKAGE = REPOSITORY / "vaejax"
COMMAND_TIMEOUT = 300


def start(
    module: str, *flags: str, devices: int = 1, cwd: pathlib.Path | None = None
) -> subprocess.Popen | Forked:
    """Starts `python -m vaejax.MODULE`, or `python -m MODULE` if vaejax has no such module."""
    module = f"vaejax.{module}" if (PACKAGE / f"{module}.py").exists() else module
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": str(devices)}
    if can_fork(environment):
        return Forked(module, flags, environment, cwd)
    return subprocess.Popen(
        [sys.executable, "-m", module, *flags],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
    )


def command(
    module: str, *flags: str, devices: int = 1, cwd: pathlib.Path | None = None
) -> subprocess.CompletedProcess:
    """Runs a command as `start` does and waits for its end; returns exit status and output."""
    process = start(module, *flags, devices=devices, cwd=cwd)
    stdout, stderr = process.communicate(timeout=COMMAND_TIMEOUT)
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def assert_one_line(result: subprocess.CompletedProcess, message: str) -> None:
    """Asserts that a command failed with one error line, its last line, that has `message`."""
    assert result.returncode == 2, result.stderr
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and message in errors[0], result.stderr
    assert "Traceback" not in result.stderr
    assert result.stderr.splitlines()[-1] == errors[0]


def without_tensorflow() -> dict[str, str]:
    """Returns environment variables that hide TensorFlow, which halves the start of a process."""
    path = [str(pathlib.Path(__file__).parent / "light"), os.environ.get("PYTHONPATH", "")]
    return {"PYTHONPATH": os.pathsep.join(filter(None, path))}


def free_port() -> int:
    """Returns a free TCP port on localhost."""
    with socket.create_server(("localhost", 0)) as server:
        return server.getsockname()[1]


def free_pair() -> int:
    """Returns a free TCP port on localhost whose next port is free as well."""
    while True:
        port = free_port()
        try:
            socket.create_server(("localhost", port + 1)).close()
        except OSError:
            continue
        return port
