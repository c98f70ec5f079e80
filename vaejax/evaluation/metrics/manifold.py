"""Precision, recall, density and coverage: are the pictures real, and are they varied?"""

from vaejax.evaluation.metric import Metric, Part, against_real
from vaejax.evaluation.observing import Rows
from vaejax.features import Extractor
from vaejax.metrics.bootstrap import Estimate
from vaejax.metrics.manifold import manifold as judge

NEIGHBOURS = 5
# The metrics change with the counts: at most this many pictures of each set are compared, and as
# many of the one as of the other.
MOST = 5_000


def manifold(name: str, extractor: Extractor, suffix: str) -> Metric:
    """Returns the metric; `suffix` follows `precision`, `recall` … in the figures' names."""

    def compare(rows: Rows, real: Rows) -> dict[str, Estimate]:
        count = min(len(rows.kept), len(real.kept), MOST)
        judged = judge(real.kept[:count], rows.kept[:count], k=NEIGHBOURS)
        return {f"{part}_{suffix}": one for part, one in judged.estimates().items()}

    parts = ("precision", "recall", "density", "coverage")
    return against_real(
        name,
        extractor,
        {
            f"{part}_{suffix}": Part(f"{part.title()} ({extractor.name})", "higher")
            for part in parts
        },
        compare,
        f"balls to the {NEIGHBOURS}th nearest neighbour in {extractor.name}, as many pictures of "
        f"each set, at most {MOST:,}; spread: bootstrap of the judged pictures",
        least=NEIGHBOURS + 1,
    )
