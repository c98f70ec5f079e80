"""Which checkpoint of a run is the best."""

import math
from collections.abc import Mapping
from typing import NamedTuple


class Ranking(NamedTuple):
    """Ranks checkpoints by one metric of their validations.

    Attributes:
      metric: name of the metric.
      highest: whether the highest value is the best, and not the lowest.
    """

    metric: str
    highest: bool = False

    def rank(self, metrics: Mapping[str, float]) -> float:
        """Returns a number that is lower for a better checkpoint.

        It is infinite if the metric is not finite or was not measured, so that such a checkpoint is
        never the best beside another.
        """
        value = metrics.get(self.metric, math.nan)
        if not math.isfinite(value):
            return math.inf
        return -value if self.highest else value
