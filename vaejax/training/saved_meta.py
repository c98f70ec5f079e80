"""What a checkpoint says of its run beside the arrays."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from vaejax.config import Config
from vaejax.records.versions import versions

# Keys of a checkpoint's metadata: what its task takes from an earlier stage,
BUILDS_ON = "builds_on"
# and the fields of `Bookkeeping`.
_EVALUATION_DUE, _SUSPECT = "evaluation_due", "suspect"
_TROUBLE_STEP, _LOWEST_LOSS = "trouble_step", "lowest_loss"


class Bookkeeping(NamedTuple):
    """What the training loop knows of the run beside the state on the devices.

    Attributes:
      evaluation_due: whether the evaluation at the checkpoint's step is still to be done.
      suspect: whether the checkpoint was saved on exit although the last updates had been skipped
        or had diverged.
      trouble_step: the step of the last rollback, or the step at which a rollback was last
        forgotten.
      lowest_loss: the lowest training loss so far (`Task.loss_of`), infinite before the first log.
    """

    evaluation_due: bool = False
    suspect: bool = False
    trouble_step: int = 0
    lowest_loss: float = math.inf


def to_meta(
    kept: Bookkeeping,
    step: int,
    config: Config,
    builds_on: Mapping[str, Any],
    fingerprint: dict[str, Any],
) -> dict[str, Any]:
    """Returns the metadata of a checkpoint, which JSON can hold.

    Args:
      kept: what the loop knows.
      step: number of updates so far.
      config: the run's config.
      builds_on: what the task takes from an earlier stage.
      fingerprint: the fingerprint of the data.
    """
    return {
        "step": step,
        "examples": step * config.train.batch_size,
        "config": dataclasses.asdict(config),
        "data": fingerprint,
        BUILDS_ON: dict(builds_on),
        "versions": versions(),
        _EVALUATION_DUE: kept.evaluation_due,
        _SUSPECT: kept.suspect,
        _TROUBLE_STEP: kept.trouble_step,
        _LOWEST_LOSS: kept.lowest_loss if math.isfinite(kept.lowest_loss) else None,
    }


def from_meta(meta: Mapping[str, Any]) -> Bookkeeping:
    """Reads what the loop knew; version 0.1 saved only whether the evaluation was due."""
    lowest = meta.get(_LOWEST_LOSS)
    return Bookkeeping(
        evaluation_due=meta[_EVALUATION_DUE],
        suspect=meta.get(_SUSPECT, False),
        trouble_step=meta.get(_TROUBLE_STEP, meta["step"]),
        lowest_loss=math.inf if lowest is None else lowest,
    )
