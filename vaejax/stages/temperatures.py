"""Fits the temperatures at which a trained ladder is sampled, one for each resolution.

Until a ladder has been trained for long, its samples at temperature 1 are torn: what one group
draws misleads the groups below. With less noise in some resolutions they are better. Child (2021,
"Very deep VAEs") chooses temperatures by eye; here distances to training pictures do.
"""

import math
import time
from collections import Counter
from collections.abc import Callable

import jax
import numpy as np

from vaejax.data import Dataset
from vaejax.data.feed.subsets import random_order
from vaejax.errors import UserError
from vaejax.evaluation.choosing import Choice, chosen_metrics
from vaejax.evaluation.comparing import compare_sets, observer_for
from vaejax.evaluation.metric import Metric
from vaejax.evaluation.picture_sets import FLOOR, REAL, SAMPLES, rows_of
from vaejax.records.progress import say
from vaejax.records.ranking import Ranking
from vaejax.runtime.mesh import make_mesh
from vaejax.tasks.finish.metrics import RANKING
from vaejax.tasks.vae.generating import Generator
from vaejax.trained.arguments import as_temperatures
from vaejax.trained.model import TrainedModel
from vaejax.trained.temperature_files import save_temperatures

Temperatures = tuple[float, ...]

# Samples, and training pictures that they are compared with.
_COUNT = 1_000
_STEPS = (0.2, 0.1)
_LOWEST, _HIGHEST = 0.1, 1.2
# Added to the seed, so that these samples are none of those that `evaluate` measures.
_SEED_OFFSET = 1 << 31


def fit_temperatures(trained: TrainedModel, dataset: Dataset, *, seed: int = 0) -> None:
    """Fits one temperature for each resolution of a ladder, saves them, and has `trained` use them.

    They make the smallest product of two distances between 1,000 samples and as many training
    pictures: the Fréchet distance in features of ResNet-50-thin, or of thumbnails where its package
    is not installed, and that of the power spectra.

    Args:
      trained: the ladder.
      dataset: the data set that `trained` was trained on.
      seed: seed of the samples.

    Raises:
      UserError: there are too few training pictures to compare with, or the distance is not a
        finite number.
      OSError: the file cannot be written.
    """
    started = time.monotonic()
    resolutions = Counter(trained.model.resolutions())
    noise = (seed + _SEED_OFFSET) % 2**32
    found = minimum(_distance(trained, dataset, noise), (1.0,) * len(resolutions))
    save_temperatures(trained.origin, trained.finished, found)
    trained.temperature = found
    of_each = ", ".join(
        f"{value:g} at {resolution}" for value, resolution in zip(found, resolutions, strict=True)
    )
    say(f"temperatures fitted in {time.monotonic() - started:.0f} s: {of_each}")


def minimum(distance: Callable[[Temperatures], float], start: Temperatures) -> Temperatures:
    """Finds temperatures at which a distance has a local minimum, by coordinate descent on a grid.

    Each temperature in turn moves by 0.2 for as long as the distance falls, until none can; then by
    0.1. The distance is computed once at each point.

    Args:
      distance: the distance at some temperatures.
      start: where to begin.
    """
    known = {start: distance(start)}
    best = start
    for step in _STEPS:
        before = None
        while best != before:
            before = best
            for at in range(len(start)):
                for change in (-step, step):
                    best = _along(distance, known, best, at, change)
    return best


def _along(
    distance: Callable[[Temperatures], float],
    known: dict[Temperatures, float],
    best: Temperatures,
    at: int,
    change: float,
) -> Temperatures:
    """Moves one temperature by `change` for as long as the distance falls."""
    while _LOWEST <= (value := round(best[at] + change, 2)) <= _HIGHEST:
        trial = (*best[:at], value, *best[at + 1 :])
        if trial not in known:
            known[trial] = distance(trial)
        if known[trial] >= known[best]:
            break
        best = trial
    return best


def _distance(
    trained: TrainedModel, dataset: Dataset, seed: int
) -> Callable[[Temperatures], float]:
    """Returns the distance between samples at some temperatures and training pictures."""
    metrics, ranking = _ranked_by(*trained.config.data.image_size)
    train = dataset.splits["train"].images
    least = max(metric.least for metric in metrics)
    if len(train) < 2 * least:
        raise UserError(
            f"temperatures are fitted by metrics that need {2 * least} training pictures, and "
            f"there are {len(train)}; name temperatures with --temperature"
        )
    order = random_order(len(train), min(2 * _COUNT, len(train)))
    half = len(order) // 2
    real = {REAL: rows_of(train, order[:half]), FLOOR: rows_of(train, order[half:])}
    mesh = make_mesh(len(jax.local_devices()), devices=jax.local_devices())
    generator = Generator(
        trained.config, trained.picture_params, mesh, finished=trained.finished is not None
    )
    observer = observer_for(metrics, mesh, batch_size=generator.batch_size)
    known: dict = {}
    resolutions = trained.model.resolutions()

    def distance(values: Temperatures) -> float:
        spread = as_temperatures(values, resolutions)
        samples = generator.samples(half, seed=seed, temperature=np.asarray(spread))
        found = compare_sets({**real, SAMPLES: samples}, metrics, observer, known)
        known.update({name: found.rows[name] for name in real if name in found.rows})
        rank = ranking.rank({figure.name: figure.estimate.value for figure in found.figures})
        shown = ", ".join(f"{value:g}" for value in values)
        if not math.isfinite(rank):
            raise UserError(
                f"samples at temperatures {shown} have no finite distance from training pictures; "
                "train for longer, or name temperatures with --temperature"
            )
        say(f"temperatures {shown}: distance {rank:.4g}")
        return rank

    return distance


def _ranked_by(height: int, width: int) -> tuple[list[Metric], Ranking]:
    """Returns the metrics that rank temperatures, and how they do."""
    try:
        return chosen_metrics(Choice(("spectrum", "frechet")), height, width).of_sets, RANKING
    except UserError as error:
        say(f"temperatures are fitted by thumbnails and spectra: {error}")
    metrics = chosen_metrics(Choice(("spectrum", "thumbnails")), height, width).of_sets
    return metrics, RANKING._replace(metric="thumbnail_frechet_samples")
