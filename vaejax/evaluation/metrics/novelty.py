"""Novelty: are the samples new faces, or copies of training faces or of one another?"""

import numpy as np
from jaxtyping import Float

from vaejax.evaluation.figures import Figure
from vaejax.evaluation.metric import GROUPS, Metric, RowsOfSets
from vaejax.evaluation.picture_sets import REAL, SAMPLES, TRAIN_ALL
from vaejax.features import Extractor
from vaejax.metrics.bootstrap import mean_estimate
from vaejax.metrics.neighbours import nearest

# A sample counts as a copy if it is closer to a training face than all but this share of the
# held-out faces, and as a repetition if it is closer to another sample than they are to each other.
QUANTILE = 0.01
# Repetitions are searched among at most this many pictures, as many of each set.
MOST = 5_000


def novelty(name: str, extractor: Extractor, suffix: str) -> Metric:
    """Returns the metric; `suffix` follows the first part of the figures' names."""

    def figures(rows: RowsOfSets) -> list[Figure]:
        if SAMPLES not in rows:
            return []
        train, real = rows[TRAIN_ALL].kept, rows[REAL].kept
        of_real = nearest(real, train, 1).distances[:, 0]
        of_samples = nearest(rows[SAMPLES].kept, train, 1).distances[:, 0]
        bound, typical = np.quantile(of_real, QUANTILE), np.median(of_real)
        count = min(len(real), len(rows[SAMPLES].kept), MOST)
        apart, real_apart = (_apart(one[:count]) for one in (rows[SAMPLES].kept, real))
        repeated = np.quantile(real_apart, QUANTILE)
        protocol = (
            f"nearest of {len(train):,} training faces, or of {count:,} of the same set, in "
            f"{extractor.name}; spread: bootstrap"
        )
        measured = {
            f"copies_{suffix}": (
                f"Share closer to a training face than {QUANTILE:.0%} of held-out faces",
                100 * (of_samples < bound),
                100 * (of_real < bound),
                "%",
            ),
            f"repeats_{suffix}": (
                f"Share with another one so close as {QUANTILE:.0%} of held-out faces have",
                100 * (apart < repeated),
                100 * (real_apart < repeated),
                "%",
            ),
            f"nearest_training_face_{suffix}": (
                "Mean distance to the nearest training face, in medians of held-out faces",
                of_samples / typical,
                of_real / typical,
                "",
            ),
        }
        return [
            Figure(
                name=f"{part}_{SAMPLES}",
                group=GROUPS[SAMPLES],
                label=f"{label} ({extractor.name})",
                estimate=mean_estimate(values),
                count=len(values),
                protocol=protocol,
                better="floor",
                unit=unit,
                floor=mean_estimate(reals),
                reference_count=len(train),
            )
            for part, (label, values, reals, unit) in measured.items()
        ]

    parts = ("copies", "repeats", "nearest_training_face")
    better = {f"{part}_{suffix}_{SAMPLES}": "floor" for part in parts}
    return Metric(name, extractor, (REAL, SAMPLES, TRAIN_ALL), figures, better)


def _apart(rows: Float[np.ndarray, "row feature"]) -> Float[np.ndarray, "row"]:
    """Returns the distance from each row to the nearest other one, in typical distances of the set.

    Blur brings all pictures closer to one another. The typical distance is the median of the
    distances between each row and the next.
    """
    typical = np.median(np.linalg.norm(rows - np.roll(rows, 1, axis=0), axis=1))
    closest = nearest(rows, rows, 1, exclude_self=True).distances[:, 0]
    return closest / max(float(typical), np.finfo(np.float32).tiny)
