"""Describes the faults of generated pictures in sentences, from figures and their floors."""

import math
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from vaejax.evaluation.figures import Figure
from vaejax.evaluation.metrics.attributes import CHART, PART, REAL_FACES
from vaejax.evaluation.picture_sets import RECONSTRUCTIONS, SAMPLES

# What is less than this many standard deviations from the floor may be chance.
_DEVIATIONS = 4.0
_NAMES = {SAMPLES: "samples", RECONSTRUCTIONS: "reconstructions"}
# At most so many attributes are named.
_MOST_NAMED = 3


def findings(
    figures: Sequence[Figure], curves: Mapping[str, dict] = MappingProxyType({})
) -> list[str]:
    """Returns one sentence for each fault that the figures show; empty if they show none.

    A fault is a number that differs from its floor by more than chance and by more than a bound
    that is stated in this file.

    Args:
      figures: the figures.
      curves: charts by name; the one of attributes tells which of them are missing.
    """
    found: list[str] = []
    for of, name in _NAMES.items():
        for figure in figures:
            if not figure.name.endswith(f"_{of}") or not figure.floor or not _differs(figure):
                continue
            found += _sentences(figure, name)
            if figure.name.startswith(PART) and CHART in curves:
                found += _attributes(figure, curves[CHART], name)
    return found


def _sentences(figure: Figure, of: str) -> Iterator[str]:
    assert figure.floor is not None
    value, floor = figure.estimate.value, figure.floor.value
    begins = figure.name.startswith
    if begins("missing_detail"):
        what = figure.label.removeprefix("Energy ").removesuffix(" that is missing")
        if value - floor > 5:
            yield f"{of} are blurred: {value:.0f}% of the energy {what} is missing"
        if value - floor < -5:
            yield (
                f"{of} have too much fine detail: {-value:.0f}% more energy {what} than real faces "
                "(noise, or marks of compression or upsampling)"
            )
    elif begins("thumbnail_frechet") and value > 2 * floor:
        yield (
            f"{of} differ in what thumbnails show (colours, light, pose, variety): their Fréchet "
            f"distance is {value / floor:.1f} times that of real faces"
        )
    elif begins("frechet") and value > 2 * floor:
        yield f"{of}: the {figure.label} is {value / floor:.1f} times that of real faces"
    elif begins("precision") and value < 0.9 * floor:
        yield (
            f"{of} are less real: {value:.0%} lie among real faces, where {floor:.0%} of other "
            "real faces do"
        )
    elif begins("coverage") and value < 0.9 * floor:
        yield (
            f"{of} are less varied: they come near {value:.0%} of the real faces, other real faces "
            f"near {floor:.0%}"
        )
    elif begins("copies") and value > 3 * floor + 2:
        yield (
            f"{of} are copied: {value:.0f}% are closer to a training face than all but "
            f"{floor:.0f}% of held-out faces are"
        )
    elif begins("repeats") and value > 3 * floor + 2:
        yield (
            f"{of} are repeated: {value:.0f}% have another one so close as only {floor:.0f}% of "
            "held-out faces have"
        )
    elif begins("faces_found") and value < floor - 2:
        yield f"{of}: a face is found in {value:.0f}%, where it is in {floor:.0f}% of real faces"
    elif begins("landmark_distance") and value > 3 * floor:
        yield (
            f"{of}: eyes, nose and mouth do not lie as in real faces: their distance is "
            f"{value / floor:.1f} times that of real faces"
        )


def _attributes(figure: Figure, chart: Mapping[str, Any], of: str) -> Iterator[str]:
    """Names the attributes that are missing most, or, if none is, those that are too frequent.

    Args:
      figure: the mean difference of the shares.
      chart: the shares of each attribute and their spreads, by set.
      of: name of the set.
    """
    assert figure.floor is not None
    if not figure.estimate.value > 2 * figure.floor.value:
        return
    ours, real = (chart["lines"][name] for name in (of, REAL_FACES))
    spreads = zip(*(chart["spreads"][name] for name in (of, REAL_FACES)))
    # Sorted by the part that is left: without any of the few glasses, a kind of face is missing.
    surely = sorted(
        (
            share / max(true, 1e-9),
            f"{name} {_percent(share)} against {_percent(true)} of real faces",
        )
        for name, share, true, (one, two) in zip(chart["x"], ours, real, spreads)
        if abs(share - true) > _DEVIATIONS * (one**2 + two**2) ** 0.5
    )
    missing = [words for ratio, words in surely if ratio < 1]
    excess = [words for ratio, words in reversed(surely) if ratio > 1]
    if missing:
        yield f"{of} lack attributes: {', '.join(missing[:_MOST_NAMED])}"
    elif excess:
        yield f"{of} have attributes too often: {', '.join(excess[:_MOST_NAMED])}"


def _percent(share: float) -> str:
    return f"{share:.1f}%" if 0 < share < 1 else f"{share:.0f}%"


def _differs(figure: Figure) -> bool:
    """Whether the figure differs from its floor by more than chance; True if that is unknown."""
    assert figure.floor is not None
    difference = abs(figure.estimate.value - figure.floor.value)
    spread = math.hypot(figure.estimate.std, figure.floor.std)
    return math.isnan(spread) or difference > _DEVIATIONS * spread
