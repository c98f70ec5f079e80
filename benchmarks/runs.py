"""Real runs: `python -m vaejax.main` with the config that the benchmark was given."""

import os
import pathlib
import subprocess
import sys


def start_run(workdir: pathlib.Path, *overrides: str, **environment: str) -> subprocess.Popen:
    """Starts a run that trains with this command's `--config…` flags; its words come on stderr.

    Args:
      workdir: where it is kept.
      *overrides: such as `train.steps=200`, after the command's own.
      **environment: variables to set.
    """
    given = [word for word in sys.argv[1:] if word.startswith("--config")]
    return subprocess.Popen(
        [sys.executable, "-m", "vaejax.main", *given, f"--workdir={workdir}",
         *(f"--config.{override}" for override in overrides)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )  # fmt: skip
