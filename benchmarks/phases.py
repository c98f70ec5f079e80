"""The phases of one start of the training command, recognised by its output and files."""

import json
import re
import shutil
from collections.abc import Callable
from typing import NamedTuple

from benchmarks.attempts import Attempt
from benchmarks.same_run import Place


class Phase(NamedTuple):
    """A part of an attempt, to kill the attempt in.

    Attributes:
      reached: whether an attempt is in this phase.
      share: about how long the phase lasts, as a share of the undisturbed run's time; the kill
        comes within it.
      stops: whether the attempt is asked to stop (SIGTERM) before it is killed.
    """

    reached: Callable[[Attempt], bool]
    share: float
    stops: bool = False


def _printed(words: str) -> Callable[[Attempt], bool]:
    return lambda attempt: words in attempt.words()


def _evaluates(attempt: Attempt) -> bool:
    """Whether the last step that was logged is being evaluated now."""
    steps = re.findall(r"^step (\d+)(/|  validation)", attempt.words(), re.MULTILINE)
    if not steps or steps[-1][1] != "/":
        return False
    config = json.loads((attempt.place.workdir / "config.json").read_text())
    return int(steps[-1][0]) % config["train"]["eval_every"] == 0


def _saves(attempt: Attempt) -> bool:
    """Whether a checkpoint is being written; incomplete ones are removed before training."""
    return _printed("training from step")(attempt) and any(
        (attempt.place.workdir / "checkpoints").glob("*.orbax-checkpoint-tmp*")
    )


def _trains_a_later_stage(attempt: Attempt) -> bool:
    """Whether the model is trained, and the flow prior or the finish is being trained."""
    return bool(re.search(r"^training from step .*stages/", attempt.words(), re.MULTILINE))


PHASES = {
    "start": Phase(lambda attempt: True, 0.1),
    "pictures": Phase(_printed("preparing "), 0.2),
    "compilation": Phase(_printed("training from step"), 0.25),
    "steps": Phase(_printed("first step done"), 0.1),
    "evaluation": Phase(_evaluates, 0.05),
    "checkpoint": Phase(_saves, 0.01),
    "asked to stop": Phase(_printed("first step done"), 0.1, stops=True),
    "finishing": Phase(_printed("time: of "), 0.1),
}
# The phases of a run that goes on after the training of its model.
LATER = {
    "later stage": Phase(_trains_a_later_stage, 0.4),
    "later stage asked to stop": Phase(_trains_a_later_stage, 0.4, stops=True),
}


def forget(name: str, place: Place) -> None:
    """Removes finished results that would let the phase be skipped; incomplete ones stay."""
    if name == "pictures":
        for path in (place.cache / "vaejax").glob("*"):
            if path.is_dir() and not path.suffix:
                shutil.rmtree(path)
    if name == "compilation":
        shutil.rmtree(place.programs, ignore_errors=True)
