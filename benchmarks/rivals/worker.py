"""What a benchmark and a program in its own process say to each other.

The program gets the run's settings as a JSON file, its only argument. It writes one JSON line
about itself when it is ready. Then each line it reads is a number of seconds: it works as long
and answers with one JSON line. It ends when nobody writes to it any more.
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
    """What the program is asked to build.

    Args:
      only: values of settings such as `model.name`, other than which it cannot build.

    Raises:
      UserError: the run has others.
    """
    config = resolve(json.loads(pathlib.Path(sys.argv[1]).read_text()))
    for name, value in (only or {}).items():
        if (found := operator.attrgetter(name)(config)) != value:
            raise UserError(f"config.{name}={found}: this rival is built for {value} alone")
    return config


class Turns:
    """The program's end: it is told after each step, and returns from there when to go on."""

    def __init__(self, pictures: int, **facts: Any):
        """Counts `pictures` for each step; `facts` are told when the first step is done."""
        self.pictures, self.facts = pictures, facts
        self.deadline, self.start, self.steps = None, 0.0, 0
        # What libraries print must not end up between the answers.
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
    """Takes training steps, each done when `work` returns, whenever it is this program's turn."""
    while True:
        work()
        turns.step_done()


def take_turns(
    ours: "Worker", other: "Worker", repeats: int, seconds: float
) -> list[tuple[float, float]]:
    """Images/s of both, A B A B …: a machine's speed drifts, and a pair's ratio hardly does."""
    return [
        (ours.images_per_second(seconds), other.images_per_second(seconds)) for _ in range(repeats)
    ]


class Worker:
    """The other end: a program's process, told when to work."""

    def __init__(self, module: str, *arguments: str):
        """Starts it; `facts` is what it says when it is ready.

        Raises:
          UserError: it ended; its own words say why.
        """
        self.module = module
        # A file: into a pipe that nobody reads, a program soon waits to write its next word.
        self.words = tempfile.TemporaryFile("w+")  # noqa: SIM115, closed with it
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.words,
            text=True,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        )
        self.facts = self._answer()

    def images_per_second(self, seconds: float) -> float:
        """Lets it work."""
        print(seconds, file=self.process.stdin, flush=True)
        return self._answer()["images_per_second"]

    def close(self) -> None:
        """Lets it end."""
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()
        self.words.close()

    def _answer(self) -> dict[str, Any]:
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            self.words.seek(0)
            words = self.words.read().strip().splitlines() or ["nothing said"]
            raise UserError(f"{self.module} ended: {words[-1]}")
        return json.loads(line)
