"""Measures generated pictures during training, with the metrics that the config names."""

from collections.abc import Callable, Iterator

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float

from vaejax.config import Config, EvalConfig
from vaejax.data import Dataset
from vaejax.data.feed.subsets import random_order, random_rows
from vaejax.errors import UserError
from vaejax.evaluation.choosing import IN_TRAINING, Choice, Chosen, chosen_metrics
from vaejax.evaluation.comparing import compare_sets, observer_for
from vaejax.evaluation.figures import Figure, is_higher_better
from vaejax.evaluation.observing import KEPT, Rows
from vaejax.evaluation.pairs import measure_pairs, pair_figures
from vaejax.evaluation.picture_sets import (
    FLOOR,
    REAL,
    RECONSTRUCTIONS,
    SAMPLES,
    TRAIN_ALL,
    Batch,
    PictureSet,
    rows_of,
)
from vaejax.records.progress import say
from vaejax.records.ranking import Ranking
from vaejax.tasks.vae.generating import Generator

# The metrics of every validation that can decide the best checkpoint.
_ALWAYS = ("elbo_bits_per_dim", "psnr", "ssim")


def ranking(config: Config) -> Ranking:
    """Returns how `config.eval.best_by` ranks checkpoints."""
    metric = config.eval.best_by
    return Ranking(metric, highest=is_higher_better(metric))


def metrics_in_training(config: Config) -> Chosen:
    """Loads the metrics of `config.eval.metrics`.

    Raises:
      UserError: a name is unknown, a metric lacks what it needs, or `config.eval.best_by` names
        none of the metrics.
    """
    settings = config.eval
    for name in settings.metrics:
        if name not in IN_TRAINING:
            raise UserError(
                f"config.eval.metrics={name!r} cannot be measured during training; choose from "
                f"{', '.join(IN_TRAINING)}"
            )
    chosen = chosen_metrics(_choice(settings), *config.data.image_size)
    directions = {name: "" for name in _ALWAYS}
    directions |= {one.name: one.better for one in chosen.of_pairs}
    for metric in chosen.of_sets:
        directions |= {
            name: better
            for name, better in metric.better.items()
            if name.endswith((SAMPLES, RECONSTRUCTIONS))
        }
    known = [name for name, better in directions.items() if better != "floor"]
    if settings.best_by not in known:
        raise UserError(
            f"config.eval.best_by={settings.best_by!r} is none of the metrics of a validation that "
            f"have a best value: {', '.join(known)}; name one of them, or add its metric to "
            "config.eval.metrics"
        )
    return chosen


class PictureMetrics:
    """Measures samples and reconstructions against held-out faces.

    What is computed of real faces is kept in memory from the first call on.
    """

    def __init__(
        self,
        config: Config,
        chosen: Chosen,
        dataset: Dataset,
        mesh: Mesh,
        *,
        finished: bool = False,
        codes: Float[np.ndarray, "sample latent"] | None = None,
    ):
        """Compiles at the first call.

        Args:
          config: config of the run.
          chosen: the metrics, at least one.
          dataset: the pictures, with a validation split.
          mesh: the devices.
          finished: whether the parameters are those of a `FinishedVAE`.
          codes: at least `config.eval.samples` samples of a prior that are decoded; None samples
            the model's own prior.

        Raises:
          UserError: there are no held-out pictures, or too few pictures for a metric.
        """
        if "valid" not in dataset.splits:
            raise UserError(
                f"config.eval.metrics={config.eval.metrics} compares with held-out pictures, and "
                "there are none; hold some out with config.data.holdout, or name no metrics"
            )
        self._config, self._chosen, self._mesh = config, chosen, mesh
        self._finished, self._codes = finished, codes
        self._images = dataset.splits["valid"].images
        self._real = _real_sets(config.eval, dataset)
        count = min(config.eval.samples, self._real[REAL].count)
        self._rows = random_order(len(self._images), count)
        for metric in chosen.of_sets:
            if min(config.eval.samples, count) < metric.least:
                raise UserError(
                    f"config.eval.metrics={metric.name!r} needs {metric.least} samples and as many "
                    f"held-out pictures; there are {config.eval.samples} and "
                    f"{self._real[REAL].count}: raise config.eval.samples, or leave it out"
                )
        self._observer = observer_for(chosen.of_sets, mesh, batch_size=config.eval.batch_size)
        self._known: dict[str, dict[str, Rows]] = {}
        self._generator: Generator | None = None

    def __call__(self, params: dict[str, dict], check: Callable[[], None]) -> dict[str, float]:
        """Measures the model with these parameters, and prints the figures beside their floors.

        Args:
          params: parameters of the run's only network by name, whole on every device.
          check: is called before each batch; it may raise, to end the measurement.

        Returns:
          The figures by name.
        """
        (vae,) = params.values()
        if self._generator is None:
            self._generator = Generator(self._config, vae, self._mesh, finished=self._finished)
        generator = self._generator.with_params(vae)
        count, codes = self._config.eval.samples, self._codes
        drawn = generator.samples(count) if codes is None else generator.decoded(codes[:count])
        sets = self._real | {
            SAMPLES: drawn,
            RECONSTRUCTIONS: generator.reconstructions(self._images, self._rows),
        }
        sets = {name: _checked(one, check) for name, one in sets.items()}
        figures = self._of_pairs(sets[RECONSTRUCTIONS], check)
        if self._chosen.of_sets:
            found = compare_sets(sets, self._chosen.of_sets, self._observer, self._known)
            self._known = {name: found.rows[name] for name in self._real if name in found.rows}
            figures += found.figures
        for figure in figures:
            say(f"  {figure.line()}")
        return {figure.name: figure.estimate.value for figure in figures}

    def _of_pairs(self, reconstructions: PictureSet, check: Callable[[], None]) -> list[Figure]:
        if not self._chosen.of_pairs:
            return []
        values = measure_pairs(
            _checked(rows_of(self._images, self._rows), check),
            reconstructions,
            self._chosen.of_pairs,
            self._mesh,
            batch_size=self._config.eval.batch_size,
        )
        return pair_figures(self._chosen.of_pairs, values)


def _choice(settings: EvalConfig) -> Choice:
    weights = settings.weights or None
    return Choice(
        settings.metrics,
        settings.features,
        inception=weights if settings.features == "inception" else None,
        vgg=weights if settings.features == "vgg" else None,
    )


def _real_sets(settings: EvalConfig, dataset: Dataset) -> dict[str, PictureSet]:
    """Returns the held-out faces, as many training faces as samples, and many training faces."""
    valid, train = (dataset.splits[split].images for split in ("valid", "train"))
    few = random_order(len(train), min(settings.samples, len(train)))
    return {
        REAL: rows_of(valid, random_rows(len(valid), settings.pictures)),
        FLOOR: rows_of(train, few),
        TRAIN_ALL: rows_of(train, random_rows(len(train), KEPT)),
    }


def _checked(pictures: PictureSet, check: Callable[[], None]) -> PictureSet:
    """Returns the set, calling `check` before each batch."""

    def batches() -> Iterator[Batch]:
        for batch in pictures.batches():
            check()
            yield batch

    return pictures._replace(batches=batches)
