"""Describes the faults of generated pictures in sentences, from figures and their floors."""

import math
from collections.abc import Iterator, Sequence

from vaejax.evaluation.figures import Figure
from vaejax.evaluation.picture_sets import RECONSTRUCTIONS, SAMPLES

# What is less than this many standard deviations from the floor may be chance.
_DEVIATIONS = 4.0
_NAMES = {SAMPLES: "samples", RECONSTRUCTIONS: "reconstructions"}


def findings(figures: Sequence[Figure]) -> list[str]:
    """Returns one sentence for each fault that the figures show; empty if they show none.

    A fault is a number that differs from its floor by more than chance and by more than a bound
    that is stated in this file.
    """
    return [
        sentence
        for of, name in _NAMES.items()
        for figure in figures
        if figure.name.endswith(f"_{of}") and figure.floor and _differs(figure)
        for sentence in _sentences(figure, name)
    ]


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


def _differs(figure: Figure) -> bool:
    """Whether the figure differs from its floor by more than chance; True if that is unknown."""
    assert figure.floor is not None
    difference = abs(figure.estimate.value - figure.floor.value)
    spread = math.hypot(figure.estimate.std, figure.floor.std)
    return math.isnan(spread) or difference > _DEVIATIONS * spread
