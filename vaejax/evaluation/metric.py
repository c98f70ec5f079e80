"""What a metric of sets of pictures is: an extractor, the sets it needs, and their comparison."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from vaejax.evaluation.figures import Figure
from vaejax.evaluation.observing import Rows, first_rows
from vaejax.evaluation.picture_sets import (
    DECODED,
    FLOOR,
    INTERPOLATIONS,
    MIDPOINTS,
    REAL,
    RECONSTRUCTIONS,
    SAMPLES,
)
from vaejax.features import Extractor
from vaejax.metrics.bootstrap import Estimate

# The headings of the report's tables.
GROUPS = {
    SAMPLES: "Samples against held-out faces",
    RECONSTRUCTIONS: "Reconstructions against held-out faces",
    MIDPOINTS: "Midpoints between neighbouring codes against held-out faces",
    INTERPOLATIONS: "Interpolations against held-out faces",
    DECODED: "Decoded training codes against held-out faces",
}
RowsOfSets = Mapping[str, Rows]


class Metric(NamedTuple):
    """A metric of sets of pictures.

    Attributes:
      name: the name by which `--metrics` chooses it.
      extractor: computes the rows that it compares.
      sets: names of the sets it needs; of the generated ones it takes those that are there.
      figures: computes the figures from the rows of each set.
      better: by the name of each figure that it may compute, one of `figures.BETTER`.
      curves: computes the report's charts from the rows, by name.
      least: the smallest number of pictures of a set that it can measure.
    """

    name: str
    extractor: Extractor
    sets: tuple[str, ...]
    figures: Callable[[RowsOfSets], list[Figure]]
    better: Mapping[str, str]
    curves: Callable[[RowsOfSets], Mapping[str, dict]] = lambda rows: {}
    least: int = 3


class Part(NamedTuple):
    """How readers see one of the numbers that a comparison returns.

    Attributes:
      label: what the number is.
      better: one of `figures.BETTER`.
      unit: as in `figures.Figure`.
    """

    label: str
    better: str = "lower"
    unit: str = ""


def against_real(
    name: str,
    extractor: Extractor,
    parts: Mapping[str, Part],
    compare: Callable[[Rows, Rows], Mapping[str, Estimate]],
    protocol: str,
    *,
    measured: Sequence[str] = (SAMPLES, RECONSTRUCTIONS, MIDPOINTS, INTERPOLATIONS),
    least: int = 3,
) -> Metric:
    """Returns a metric that compares each set with the held-out faces.

    The floor is the same comparison of as many other real faces, which `FLOOR` holds: no person is
    in both sets where the data set keeps persons apart, so it is what a perfect model would reach.

    Args:
      name: name of the metric.
      extractor: computes the rows.
      parts: the names of the numbers that `compare` returns, and how readers see them.
      compare: computes the numbers from the rows of a set and of the held-out faces.
      protocol: how the numbers are computed, in one line.
      measured: names of the sets to measure.
      least: the smallest number of pictures of a set that `compare` can take.
    """

    def figures(rows: RowsOfSets) -> list[Figure]:
        found, real = [], rows[REAL]
        for of in measured:
            if of not in rows:
                continue
            values = compare(rows[of], real)
            floors = compare(first_rows(rows[FLOOR], rows[of].pictures), real)
            for part, (label, better, unit) in parts.items():
                found.append(
                    Figure(
                        name=f"{part}_{of}",
                        group=GROUPS[of],
                        label=label,
                        estimate=values[part],
                        count=rows[of].pictures,
                        protocol=protocol,
                        better=better,
                        unit=unit,
                        floor=floors[part],
                        reference_count=real.pictures,
                    )
                )
        return found

    directions = {f"{part}_{of}": one.better for of in measured for part, one in parts.items()}
    return Metric(name, extractor, (REAL, FLOOR, *measured), figures, directions, least=least)
