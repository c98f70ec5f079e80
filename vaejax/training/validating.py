"""Validates the networks of a run: the task's evaluator, and metrics of generated pictures."""

from collections.abc import Callable
from itertools import takewhile

import jax
from jaxtyping import PyTree

from vaejax.data.feed import pipeline
from vaejax.data.feed.subsets import random_rows
from vaejax.runtime.mesh import round_up
from vaejax.training.opening import Parts
from vaejax.training.task import Values


class _Stopped(Exception):
    """Ends a measurement when the run is asked to stop."""


def validate(
    parts: Parts, step: int, params: dict[str, PyTree], goes_on: Callable[[], bool]
) -> Values | None:
    """Returns the metrics of a validation; None if there is no validation split.

    Args:
      parts: the parts of the run.
      step: number of updates so far.
      params: parameters of each network, whole on every device.
      goes_on: is called before each batch; once it returns False, the metrics cover only a part of
        the pictures and must not be used.
    """
    if "valid" not in parts.dataset.splits:
        return None
    settings = parts.config.eval
    batches = pipeline.eval_batches(
        parts.arrays["valid"],
        chosen=random_rows(len(parts.dataset.splits["valid"].images), settings.pictures),
        # Padded rows do not count, so a larger batch gives the same numbers.
        batch_size=round_up(settings.batch_size, parts.mesh),
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    totals = parts.evaluator(params, takewhile(lambda _: goes_on(), batches))
    if totals is None:
        return None
    return parts.evaluator.summarize(totals) | _of_pictures(parts, step, params, goes_on)


def _of_pictures(
    parts: Parts, step: int, params: dict[str, PyTree], goes_on: Callable[[], bool]
) -> Values:
    """Returns the metrics of generated pictures, if they are due."""
    every = parts.config.train.eval_every * parts.config.eval.metrics_every
    last = step >= parts.config.train.steps
    if parts.picture_metrics is None or not (last or step % every == 0):
        return {}

    def check() -> None:
        if not goes_on():
            raise _Stopped

    try:
        return parts.picture_metrics(params, check)
    except _Stopped:
        return {}
