"""Real runs, and what they wrote."""

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
        """Of a process whose words come through a pipe."""
        self._process, self._last = process, ""

    def lines(self) -> Iterator[str]:
        """What it says, as it says it."""
        for line in self._process.stderr:
            self._last = line
            yield line

    def check(self) -> None:
        """Waits for its end.

        Raises:
          UserError: it failed; with what it said last.
        """
        for _ in self.lines():
            pass
        if self._process.wait():
            raise UserError(f"the run failed: {self._last.strip().removeprefix('error: ')}")


def own_overrides() -> dict[str, object]:
    """What this command's `--config.…` flags change, by names such as `train.steps`."""
    return config_flags.get_override_values(flags.FLAGS["config"])


def command(workdir: pathlib.Path, *overrides: str) -> list[str]:
    """The command that trains with this command's `--config…` flags.

    Args:
      workdir: where the run is kept.
      *overrides: such as `train.steps=200`, after the command's own.
    """
    file = config_flags.get_config_filename(flags.FLAGS["config"])
    changes = [*(f"{key}={value}" for key, value in own_overrides().items()), *overrides]
    return [
        *(sys.executable, "-m", "vaejax.main", f"--config={file}", f"--workdir={workdir}"),
        *(f"--config.{change}" for change in changes),
    ]


@contextmanager
def start_run(workdir: pathlib.Path, *overrides: str, **environment: str) -> Iterator[Run]:
    """A run that trains with this command's `--config…` flags, and ends with the block at latest.

    Args:
      workdir: where it is kept.
      *overrides: such as `train.steps=200`, after the command's own.
      **environment: variables to set.
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
    """Trains to the end.

    Raises:
      UserError: the run failed; its own words say why.
    """
    with start_run(workdir, *overrides) as run:
        run.check()


def run_here(config: Config, workdir: pathlib.Path) -> None:
    """Trains to the end in this process, which may hold the device that another would ask for.

    Raises:
      TrainingError: the loss stayed infinite.
      KeyboardInterrupt: it was asked to stop.
    """
    if train(config, workdir) is Outcome.INTERRUPTED:
        raise KeyboardInterrupt


def metrics(workdir: pathlib.Path, split: str) -> list[dict]:
    """What a run wrote of a split: of `train` one line for each log, of `valid` each validation."""
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if line["split"] == split]
