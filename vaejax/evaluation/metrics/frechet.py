"""Fréchet distance: do means and covariances of the features agree with those of real faces?"""

import math

from vaejax.evaluation.metric import Metric, Part, against_real
from vaejax.evaluation.observing import Rows
from vaejax.evaluation.picture_sets import (
    DECODED,
    INTERPOLATIONS,
    MIDPOINTS,
    RECONSTRUCTIONS,
    SAMPLES,
)
from vaejax.features import Extractor
from vaejax.metrics.bootstrap import Estimate
from vaejax.metrics.frechet import frechet_estimate, gaussian_distance

# With more features, leaving out each group would take many minutes.
_MOST_FEATURES = 512


def frechet(name: str, extractor: Extractor, part: str, *, scale: float = 1.0) -> Metric:
    """Returns the metric.

    Args:
      name: the name by which `--metrics` chooses it.
      extractor: the feature space.
      part: the first part of the figures' names.
      scale: factor of the figures.
    """

    def compare(rows: Rows, real: Rows) -> dict[str, Estimate]:
        a, b = rows.moments, real.moments
        if len(a.shift) <= _MOST_FEATURES:
            value, std, _ = frechet_estimate(a, b)
        else:
            value = gaussian_distance(a.mean(), a.covariance(), b.mean(), b.covariance())
            std = math.nan
        return {part: Estimate(scale * value, scale * std)}

    times = "" if scale == 1 else f", times {scale:g}"
    return against_real(
        name,
        extractor,
        {part: Part(f"Fréchet distance ({extractor.name}){times}")},
        compare,
        f"Fréchet distance of Gaussians (N - 1) to {extractor.name}{times}; spread: "
        "jackknife of groups of pictures",
        measured=(SAMPLES, RECONSTRUCTIONS, MIDPOINTS, INTERPOLATIONS, DECODED),
    )
