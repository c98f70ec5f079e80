"""The parts of an evaluation: likelihoods, reconstructions, and sets of pictures."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float

from vaejax.data.feed import pipeline
from vaejax.evaluation.comparing import compare_sets
from vaejax.evaluation.figures import Figure
from vaejax.evaluation.metric import Metric
from vaejax.evaluation.observing import Observer, Rows
from vaejax.evaluation.pairs import PairMetric, measure_pairs, pair_figures
from vaejax.evaluation.picture_sets import REAL, RECONSTRUCTIONS, PictureSet
from vaejax.priors.density import LogProb
from vaejax.records.progress import counting
from vaejax.runtime.mesh import replicated, round_up
from vaejax.tasks.vae.evaluation import evaluate, make_eval_step, summarize
from vaejax.tasks.vae.figures import figures as likelihood_figures
from vaejax.tasks.vae.figures import slices, values_of
from vaejax.trained.curves import latent_curves, training_curves
from vaejax.trained.model import TrainedModel
from vaejax.trained.picture_sets import Measured


class Measurement(NamedTuple):
    """What one or more parts of an evaluation found.

    Attributes:
      results: numbers by name.
      figures: the numbers with their spreads, floors and protocols.
      curves: charts for the report, by name.
      of_pictures: by a figure's name, its value for each measured picture.
      rows: by set, the rows of each extractor by its name.
    """

    results: dict[str, float]
    figures: list[Figure]
    curves: dict[str, dict]
    of_pictures: Mapping[str, Float[np.ndarray, "picture"]] = MappingProxyType({})
    rows: Mapping[str, Mapping[str, Rows]] = MappingProxyType({})


def joined(parts: Iterable[Measurement]) -> Measurement:
    """Returns what all parts found together."""
    whole = Measurement({}, [], {})
    for part in parts:
        whole = Measurement(
            whole.results | part.results,
            whole.figures + part.figures,
            whole.curves | part.curves,
            {**whole.of_pictures, **part.of_pictures},
            {**whole.rows, **part.rows},
        )
    return whole


def of_likelihood(
    trained: TrainedModel,
    faces: Measured,
    importance_samples: int,
    log_prior: LogProb | None,
    mesh: Mesh,
) -> Measurement:
    """Measures likelihoods, PSNR and SSIM of some faces, and shows progress.

    Args:
      trained: the model.
      faces: the faces.
      importance_samples: K of the importance-weighted bound; 0 leaves it out.
      log_prior: log p(z) of a prior that replaces the model's own; None leaves it.
      mesh: the devices.
    """
    config, is_finished = trained.config, trained.finished is not None
    step = make_eval_step(
        config,
        mesh,
        importance_samples=importance_samples,
        prior=log_prior,
        finished=is_finished,
    )
    batches = pipeline.eval_batches(
        {"image": faces.images},
        batch_size=round_up(config.eval.batch_size, mesh),
        chosen=faces.rows,
    )
    params = jax.device_put(trained.params, replicated(mesh))
    drawn = jax.device_put(trained.picture_params, replicated(mesh)) if is_finished else None
    with counting("evaluating", len(faces.rows)) as advance:
        evaluation = evaluate(step, params, _counted(batches, advance), mesh, drawn=drawn)
    assert evaluation is not None, "two pictures are at least one batch"
    results = summarize(evaluation, trained.model, config, importance_samples)
    dimensions = math.prod(config.data.shape)
    of_pictures = values_of(evaluation.pictures, dimensions, importance_samples)
    kind, groups = faces.groups()
    return Measurement(
        results,
        likelihood_figures(results, of_pictures, importance_samples, is_finished=is_finished),
        training_curves(trained.workdir)
        | latent_curves(evaluation.sums, trained.model.resolutions())
        | slices(groups, of_pictures, kind),
        of_pictures,
    )


def of_pairs(
    sets: Mapping[str, PictureSet], metrics: Sequence[PairMetric], mesh: Mesh, batch_size: int
) -> Measurement:
    """Measures each reconstruction beside its original, and shows progress.

    Args:
      sets: the sets by name.
      metrics: the metrics.
      mesh: the devices.
      batch_size: pictures in a batch.
    """
    with counting("comparing reconstructions of", sets[REAL].count) as advance:
        values = measure_pairs(
            sets[REAL],
            sets[RECONSTRUCTIONS],
            metrics,
            mesh,
            batch_size=batch_size,
            advance=advance,
        )
    return _of_figures(pair_figures(metrics, values))._replace(of_pictures=values)


def of_sets(
    sets: Mapping[str, PictureSet], metrics: Sequence[Metric], observer: Observer
) -> Measurement:
    """Compares sets of pictures with real faces, and shows progress.

    Args:
      sets: the sets by name.
      metrics: the metrics.
      observer: what `evaluation.comparing.observer_for` returns for these metrics.
    """
    found = compare_sets(sets, metrics, observer)
    return _of_figures(found.figures)._replace(curves=found.curves, rows=found.rows)


def _of_figures(figures: list[Figure]) -> Measurement:
    return Measurement({one.name: one.estimate.value for one in figures}, figures, {})


def _counted(batches: Iterable[dict], advance: Callable[[int], None]) -> Iterator[dict]:
    for batch in batches:
        yield batch
        advance(int(batch["mask"].sum()))
