"""The labels that a prior may be conditioned on: how values are scaled, and which are valid."""

import difflib
import numbers
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32

from vaejax.errors import UserError

Given = Mapping[str, float | int | np.bool_]
"""Values of some labels, by name."""

# How far beyond the values of the training pictures a number may lie, as a share of their range.
_MARGIN = 0.1
# How many names a message lists.
_SHOWN = 8


class Label(NamedTuple):
    """A label, whose value is scaled by (value - center) / scale.

    A label of 0 and 1 is scaled to -1 and 1, any other to mean 0 and standard deviation 1.

    Attributes:
      name: its name.
      low: the least value that may be given.
      high: the greatest value that may be given.
      center: the mean over the training pictures; 0.5 for a label of 0 and 1.
      scale: the standard deviation over the training pictures; 0.5 for a label of 0 and 1.
    """

    name: str
    low: float
    high: float
    center: float
    scale: float

    @property
    def is_binary(self) -> bool:
        """Whether the values are 0 and 1, which are coded as -1 and +1."""
        return self[1:] == _BINARY


# low, high, center and scale of a label of 0 and 1.
_BINARY = (0.0, 1.0, 0.5, 0.5)


def fit_labels(
    names: Sequence[str], parts: Sequence[Float[np.ndarray, "_ label"]]
) -> tuple[Label, ...]:
    """Determines the scaling of labels from the training pictures.

    Args:
      names: the name of each label.
      parts: values of the labels, in parts; no label has the same value everywhere.
    """
    columns = np.concatenate(parts).astype(np.float64).T
    return tuple(_fit(name, column) for name, column in zip(names, columns, strict=True))


def _fit(name: str, values: Float[np.ndarray, "picture"]) -> Label:
    if np.all((values == 0) | (values == 1)):
        return Label(name, *_BINARY)
    low, high = float(values.min()), float(values.max())
    margin = _MARGIN * (high - low)
    return Label(name, low - margin, high + margin, float(values.mean()), float(values.std()))


def scaled(
    labels: Sequence[Label], values: Float[np.ndarray, "picture label"]
) -> Float32[np.ndarray, "picture label"]:
    """Scales values of labels, as the network takes them."""
    center, scale = np.array([[label.center, label.scale] for label in labels]).T
    return ((values - center) / scale).astype(np.float32)


def condition_of(labels: Sequence[Label], given: Given) -> Float32[np.ndarray, "label 2"]:
    """Returns a condition on some labels: their scaled values and 1, and (0, 0) for the others.

    Args:
      labels: all labels of a prior.
      given: values of some of them.

    Raises:
      UserError: there is no such label, or a value is not a number in the label's range.
    """
    known = {label.name: (place, label) for place, label in enumerate(labels)}
    condition = np.zeros((len(labels), 2), np.float32)
    for name, value in given.items():
        if name not in known:
            raise UserError(f"the prior has learned no label {name!r}; {choices(name, known)}")
        place, label = known[name]
        _check(label, value)
        condition[place] = (value - label.center) / label.scale, 1.0
    return condition


def choices(name: str, known: Sequence[str] | Mapping[str, object]) -> str:
    """Returns the end of a message about a label that does not exist: some that do exist."""
    listed = ", ".join(list(known)[:_SHOWN]) or "none"
    more = f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else ""
    near = difflib.get_close_matches(name, known, n=1)
    return f"it has: {listed}{more}{f'; did you mean {near[0]}?' if near else ''}"


def _check(label: Label, value: float | int | np.bool_) -> None:
    is_number = isinstance(value, (numbers.Real, np.bool_)) and label.low <= value <= label.high
    if label.is_binary and not (is_number and value in (0, 1)):
        raise UserError(f"label {label.name}={value} must be 0 or 1")
    if not is_number:
        raise UserError(
            f"label {label.name}={value} must be a number from {label.low:.3g} to {label.high:.3g},"
            " about as in the training pictures"
        )
