"""Measures sets of pictures with metrics: each set is streamed once, whatever the metrics."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from jax.sharding import Mesh

from vaejax.data.cache.rows import RowCache
from vaejax.evaluation.figures import Figure
from vaejax.evaluation.metric import Metric
from vaejax.evaluation.observing import Observer, Rows
from vaejax.evaluation.picture_sets import PictureSet
from vaejax.records.progress import counting


class Comparison(NamedTuple):
    """What the metrics say of the sets.

    Attributes:
      figures: the figures, metric by metric.
      curves: charts for the report, by name.
      rows: by set, the rows of each extractor by its name.
    """

    figures: list[Figure]
    curves: dict[str, dict]
    rows: dict[str, dict[str, Rows]]


def observer_for(
    metrics: Sequence[Metric], mesh: Mesh, *, batch_size: int = 100, cache: RowCache | None = None
) -> Observer:
    """Returns an observer with the extractors of some metrics; arguments as for `Observer`."""
    extractors = {metric.extractor.name: metric.extractor for metric in metrics}
    return Observer(list(extractors.values()), mesh, batch_size, cache)


def compare_sets(
    sets: Mapping[str, PictureSet],
    metrics: Sequence[Metric],
    observer: Observer,
    known: Mapping[str, dict[str, Rows]] = MappingProxyType({}),
) -> Comparison:
    """Computes all figures of some metrics, and shows progress.

    The memory it takes does not grow with the number of pictures: of each set, moments and at most
    `observing.KEPT` rows are held.

    Args:
      sets: the sets by name (`picture_sets`): the real ones, and the generated ones to measure.
      metrics: the metrics; each measures those of its sets that are there.
      observer: what `observer_for` returns for these metrics.
      known: the `rows` of sets that were compared with the same metrics before.

    Raises:
      UserError: an extractor's numbers are not finite.
      KeyError: a metric needs a set of real pictures that is missing.
    """
    wanted = {
        name: sorted({metric.extractor.name for metric in metrics if name in metric.sets})
        for name in sets
        if name not in known
    }
    total = sum(observer.passes(sets[name], chosen) for name, chosen in wanted.items() if chosen)
    with counting("measuring", total) as advance:
        rows = dict(known) | {
            name: observer(sets[name], chosen, advance) for name, chosen in wanted.items() if chosen
        }
    figures: list[Figure] = []
    curves: dict[str, dict] = {}
    for metric in metrics:
        of = metric.extractor.name
        own = {name: found[of] for name, found in rows.items() if of in found}
        figures += metric.figures(own)
        curves |= metric.curves(own)
    return Comparison(figures, curves, rows)
