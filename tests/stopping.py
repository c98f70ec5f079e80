"""Runs a command and interrupts it with SIGTERM."""

import signal
import subprocess

from commands import COMMAND_TIMEOUT, start


def stopped_at(line: str, module: str, *flags: str) -> subprocess.CompletedProcess:
    """Runs `python -m vaejax.MODULE`; sends SIGTERM once a line on stderr contains `line`."""
    process = start(module, *flags)
    said = []
    for said_now in process.stderr:
        said.append(said_now)
        if line in said_now:
            process.send_signal(signal.SIGTERM)
            break
    out, rest = process.communicate(timeout=COMMAND_TIMEOUT)
    return subprocess.CompletedProcess(process.args, process.returncode, out, "".join(said) + rest)
