"""Starts real training runs, and reads the metrics that they wrote."""

import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from absl import flags
from ml_collections import config_flags

from vaejax.config import Config
from vaejax.errors import UserError
from vaejax.training.loop import Outcome, train


class Run:
    """A run that trains in a process of its own."""

    def __init__(self, process: subprocess.Popen):
        """Takes a process whose standard error is a pipe."""
        self._process, self._last = process, ""

    def lines(self) -> Iterator[str]:
        """Yields the lines that it prints on standard error, as they come."""
        for line in self._process.stderr:
            self._last = line
            yield line

    def check(self) -> None:
        """Waits for its end.

        Raises:
          UserError: it failed; the message has its last line.
        """
        for _ in self.lines():
            pass
        if self._process.wait():
            raise UserError(f"the run failed: {self._last.strip().removeprefix('error: ')}")


def own_overrides() -> dict[str, object]:
    """Returns what this command's `--config.…` flags change, by names such as `train.steps`."""
    return config_flags.get_override_values(flags.FLAGS["config"])


def command(workdir: pathlib.Path, *overrides: str) -> list[str]:
    """Returns the command line that trains with this command's `--config…` flags.

    Args:
      workdir: directory of the run.
      *overrides: further settings such as `train.steps=200`, which win over the flags.
    """
    file = config_flags.get_config_filename(flags.FLAGS["config"])
    changes = [*(f"{key}={value}" for key, value in own_overrides().items()), *overrides]
    return [
        *(sys.executable, "-m", "vaejax.main", f"--config={file}", f"--workdir={workdir}"),
        *(f"--config.{change}" for change in changes),
    ]


@contextmanager
def start_run(workdir: pathlib.Path, *overrides: str, **environment: str) -> Iterator[Run]:
    """Starts a run with this command's `--config…` flags; kills it at the end of the block.

    Args:
      workdir: directory of the run.
      *overrides: further settings such as `train.steps=200`, which win over the flags.
      **environment: environment variables to set.
    """
    with subprocess.Popen(
        command(workdir, *overrides),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    ) as process:
        try:
            yield Run(process)
        finally:
            process.kill()


def finished_run(workdir: pathlib.Path, *overrides: str) -> None:
    """Trains to the end, in a process of its own; arguments as `start_run` has them.

    Raises:
      UserError: the run failed; the message has its last line.
    """
    with start_run(workdir, *overrides) as run:
        run.check()


def run_here(config: Config, workdir: pathlib.Path) -> None:
    """Trains to the end in this process, which may hold the device that another would need.

    Raises:
      TrainingError: training diverged, or updates were not finite, still after two rollbacks.
      KeyboardInterrupt: it was asked to stop.
    """
    if train(config, workdir) is Outcome.INTERRUPTED:
        raise KeyboardInterrupt


def metrics(workdir: pathlib.Path, split: str) -> list[dict]:
    """Returns what a run wrote: a dict for each log ("train") or each validation ("valid")."""
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if line["split"] == split]
