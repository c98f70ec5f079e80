"""Kernel distance: asks the same as the Fréchet distance, without its bias at small counts."""

import math

from vaejax.evaluation.metric import Metric, Part, against_real
from vaejax.evaluation.observing import Rows
from vaejax.features import Extractor
from vaejax.metrics.bootstrap import Estimate
from vaejax.metrics.kid import kernel_distance

_SUBSETS, _SIZE = 50, 500
_SCALE = 1000


def kid(name: str, extractor: Extractor, part: str) -> Metric:
    """Returns the metric; arguments as for `metrics.frechet.frechet`."""

    def compare(rows: Rows, real: Rows) -> dict[str, Estimate]:
        size = min(_SIZE, len(rows.kept) // 2, len(real.kept) // 2)
        distance = kernel_distance(rows.kept, real.kept, subsets=_SUBSETS, size=size)
        # The subsets overlap: together they tell no more than disjoint ones would.
        disjoint = min(len(rows.kept), len(real.kept)) / size
        std = _SCALE * distance.std / math.sqrt(disjoint)
        return {part: Estimate(_SCALE * distance.mean, std)}

    return against_real(
        name,
        extractor,
        {part: Part(f"Kernel distance ({extractor.name}), times {_SCALE}")},
        compare,
        f"unbiased squared MMD of {extractor.name}, kernel (x·y/d + 1)³, {_SUBSETS} random subsets "
        f"of {_SIZE} (or half of the pictures), times {_SCALE}; spread: that of the mean of as "
        "many subsets as would be disjoint",
        least=4,
    )
