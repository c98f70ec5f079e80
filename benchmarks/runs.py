"""Real runs: `python -m vaejax.main` with the config that the benchmark was given."""

import json
import os
import pathlib
import subprocess
import sys

from absl import flags
from ml_collections import config_flags

from vaejax.errors import UserError


def start_run(workdir: pathlib.Path, *overrides: str, **environment: str) -> subprocess.Popen:
    """Starts a run that trains with this command's `--config…` flags; its words come on stderr.

    Args:
      workdir: where it is kept.
      *overrides: such as `train.steps=200`, after the command's own.
      **environment: variables to set.
    """
    file = config_flags.get_config_filename(flags.FLAGS["config"])
    own = config_flags.get_override_values(flags.FLAGS["config"])
    changes = [*(f"{key}={value}" for key, value in own.items()), *overrides]
    return subprocess.Popen(
        [sys.executable, "-m", "vaejax.main", f"--config={file}", f"--workdir={workdir}",
         *(f"--config.{change}" for change in changes)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )  # fmt: skip


def finished_run(workdir: pathlib.Path, *overrides: str) -> None:
    """Trains to the end.

    Raises:
      UserError: the run failed; its own words say why.
    """
    process = start_run(workdir, *overrides)
    said = process.communicate()[1].splitlines()
    check(process, said[-1] if said else "")


def check(process: subprocess.Popen, said: str) -> None:
    """Raises what a run that failed said last, as this command's own error."""
    if process.wait():
        raise UserError(f"the run failed: {said.strip().removeprefix('error: ')}")


def metrics(workdir: pathlib.Path, split: str) -> list[dict]:
    """What a run wrote of a split: of `train` one line for each log, of `valid` each validation."""
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if line["split"] == split]
