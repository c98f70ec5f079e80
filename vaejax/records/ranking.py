"""Which checkpoint of a run is the best."""

import math
from collections.abc import Mapping
from typing import NamedTuple


class Ranking(NamedTuple):
    """Ranks checkpoints by one metric of their validations, or by the product of two.

    Attributes:
      metric: name of the metric.
      highest: whether the highest value is the best, and not the lowest.
      factor: name of another metric that multiplies the first; "" for none.
      least_factor: the least value that the factor takes.
    """

    metric: str
    highest: bool = False
    factor: str = ""
    least_factor: float = 0.0

    def rank(self, metrics: Mapping[str, float]) -> float:
        """Returns a number that is lower for a better checkpoint.

        It is infinite if a metric is not finite or was not measured, so that such a checkpoint is
        never the best beside another.
        """
        value = metrics.get(self.metric, math.nan)
        if self.factor:
            factor = metrics.get(self.factor, math.nan)
            value *= factor if math.isnan(factor) else max(factor, self.least_factor)
        if not math.isfinite(value):
            return math.inf
        return -value if self.highest else value
