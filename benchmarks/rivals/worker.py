"""The protocol between a benchmark and a program that runs in a process of its own.

The program gets the run's settings as a JSON file, its first argument. It writes one JSON line
about itself when it is ready. Then each line it reads is a number of seconds: it works for that
long and answers with one JSON line. It ends at the end of its input.
"""

import json
import operator
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any

from vaejax.config import Config
from vaejax.config.settings import resolve
from vaejax.errors import UserError


def settings(only: Mapping[str, Any] | None = None) -> Config:
    """Returns the config of what the program is asked to build.

    Args:
      only: settings by names such as `model.name`, each with the one value that it can build.

    Raises:
      UserError: the config has another value.
    """
    config = resolve(json.loads(pathlib.Path(sys.argv[1]).read_text()))
    for name, value in (only or {}).items():
        if (found := operator.attrgetter(name)(config)) != value:
            raise UserError(f"config.{name}={found}: this rival is built for {value} alone")
    return config


class Turns:
    """The program's end. `step_done` is called after each step, and returns when to go on."""

    def __init__(self, pictures: int, **facts: Any):
        """Takes standard output for the answers; prints go to standard error from then on.

        Args:
          pictures: number of pictures in a step.
          **facts: the first answer, sent when the first step is done.
        """
        self.pictures, self.facts = pictures, facts
        self.deadline, self.start, self.steps = None, 0.0, 0
        # What libraries print must not get between the answers.
        self.answers, sys.stdout = sys.stdout, sys.stderr

    def step_done(self) -> None:
        """Answers and waits for the next turn if this one is over; the first step is a warm-up.

        Raises:
          SystemExit: there is no next turn.
        """
        self.steps += 1
        now = time.perf_counter()
        if self.deadline is None:
            self._answer(self.facts)
        elif now < self.deadline:
            return
        else:
            self._answer({"images_per_second": self.steps * self.pictures / (now - self.start)})
        line = sys.stdin.readline()
        if not line:
            raise SystemExit
        self.start, self.steps = time.perf_counter(), 0
        self.deadline = self.start + float(line)

    def _answer(self, values: dict[str, Any]) -> None:
        print(json.dumps(values), file=self.answers, flush=True)


def serve(work: Callable[[], object], turns: Turns) -> None:
    """Calls `work`, which makes one training step, whenever it is this program's turn."""
    while True:
        work()
        turns.step_done()


def take_turns(
    ours: "Worker", other: "Worker", repeats: int, seconds: float
) -> list[tuple[float, float]]:
    """Measures images/s of both, A B A B …: speeds drift, but a pair's ratio hardly does."""
    return [
        (ours.images_per_second(seconds), other.images_per_second(seconds)) for _ in range(repeats)
    ]


class Worker:
    """The benchmark's end: the process of a program, which works when it is told to."""

    def __init__(self, module: str, *arguments: str):
        """Starts the program and waits until it is ready; `facts` is its first answer.

        Args:
          module: the program's module, such as `benchmarks.rivals.pytorch`.
          *arguments: its arguments, first the JSON file of the settings.

        Raises:
          UserError: it ended; the message has its last line.
        """
        self.module = module
        # A file: a program that writes into a pipe that nobody reads soon blocks.
        self.words = tempfile.TemporaryFile("w+")  # noqa: SIM115, closed with it
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.words,
            text=True,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        )
        try:
            self.facts = self._answer()
        except BaseException:
            self.close()
            raise

    def images_per_second(self, seconds: float) -> float:
        """Lets it work for so many seconds; returns its speed.

        Raises:
          UserError: it ended; the message has its last line.
        """
        print(seconds, file=self.process.stdin, flush=True)
        return self._answer()["images_per_second"]

    def close(self) -> None:
        """Closes its input, which ends it, and waits for its end."""
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()
        self.words.close()

    def _answer(self) -> dict[str, Any]:
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            self.words.seek(0)
            words = self.words.read().strip().splitlines() or ["no output"]
            raise UserError(f"{self.module} ended: {words[-1]}")
        return json.loads(line)
