"""The task that sharpens a trained VAE's decoder.

The decoder is trained on against a discriminator that sees real pictures, reconstructions, and
samples of the prior (Larsen et al. 2016, "Autoencoding beyond pixels using a learned similarity
metric"). Encoder and prior stay as the ELBO has trained them, so codes keep their meaning.
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from vaejax.config import Config, OptimizerConfig
from vaejax.data import Dataset
from vaejax.data.feed.pipeline import Arrays
from vaejax.models import EXACT
from vaejax.models.discriminator import Discriminator
from vaejax.models.finished import finished_params, picture_model
from vaejax.models.noise import Keys
from vaejax.records.ranking import Ranking
from vaejax.tasks.augmentation import mirror
from vaejax.tasks.finish.evaluation import Evaluator
from vaejax.tasks.finish.losses import (
    DecoderSums,
    DiscriminatorSums,
    Seen,
    decoder_loss,
    judge_loss,
    seen,
)
from vaejax.tasks.finish.metrics import RANKING, Health, summarize
from vaejax.tasks.vae import NET
from vaejax.tasks.vae.gallery import Gallery
from vaejax.tasks.vae.picture_metrics import PictureMetrics, metrics_in_training, ranking

DECODER, DISCRIMINATOR = "decoder", "discriminator"
# The modules of a VAE that decode. Those of a ladder sample its prior as well, and stay.
_DECODING = ("decoder", "head")
# The name of the prior's samples among the examples.
_SAMPLE = "sample"
# Ratio of the pixel error to its lowest value so far, above which training has diverged.
_DIVERGED = 3.0


class FinishTask:
    """Trains the decoder of a VAE and a discriminator; a third network, the VAE, stays as it is.

    For the methods see `training.task.Task`.

    Attributes:
      config: config of the stage.
      builds_on: identifies the VAE, as a JSON object.
      begins_trained: true, so that the decoder is evaluated before its first update as well: where
        no later checkpoint is better, that one is the best.
    """

    begins_trained = True

    def __init__(
        self,
        config: Config,
        params: PyTree,
        samples: Float[np.ndarray, "picture latent"] | None,
        builds_on: Mapping[str, Any],
    ):
        """Builds the networks; initialises no parameters.

        Args:
          config: config of the stage.
          params: parameters of the trained VAE.
          samples: samples of a prior, as many as there are training pictures; None for the
            model's own prior.
          builds_on: identifies the VAE; it is saved in checkpoints.
        """
        self.config, self.builds_on = config, builds_on
        self._params, self._samples = params, samples
        self._model: Any = picture_model(config, finished=True)[0]
        settings, common = config.finish, config.optimizer
        self._network = Discriminator(settings.widths, jnp.dtype(config.model.dtype))
        self.optimizers: dict[str, OptimizerConfig | None] = {
            NET: None,
            DECODER: _with_rate(common, settings.decoder_rate),
            DISCRIMINATOR: _with_rate(common, settings.discriminator_rate),
        }

    @property
    def best_by(self) -> Ranking:
        """Ranks checkpoints by samples if their features are measured."""
        found = ranking(self.config)
        return RANKING if found.metric == RANKING.metric else found

    def examples(self, dataset: Dataset) -> dict[str, Arrays]:
        """Returns the pictures of each split, and samples of the prior beside those of `train`."""
        arrays: dict[str, Arrays] = {name: split.arrays() for name, split in dataset.splits.items()}
        if self._samples is not None:
            arrays["train"] = {**arrays["train"], _SAMPLE: self._samples}
        return arrays

    def init(self, key: PRNGKeyArray) -> dict[str, PyTree]:
        """Returns the trained VAE, its decoder with a new refiner, and a new discriminator."""
        picture = jnp.zeros((1, *self.config.data.shape))
        of_refiner, of_discriminator = jax.random.split(key)
        names = () if self.config.model.has_groups else _DECODING
        return {
            NET: self._params,
            DECODER: {
                "vae": {name: self._params[name] for name in names if name in self._params},
                "refiner": self._model.refiner.init(of_refiner, picture)["params"],
            },
            DISCRIMINATOR: self._network.init(of_discriminator, picture)["params"],
        }

    def augment(self, batch: dict[str, Array], key: PRNGKeyArray) -> dict[str, Array]:
        """Mirrors half of the pictures at random if `config.data.flip` is set."""
        return mirror(batch, key) if self.config.data.flip else batch

    def loss(
        self,
        net: str,
        params: dict[str, PyTree],
        batch: dict[str, Array],
        keys: Keys,
        step: Int[Array, ""],
    ) -> tuple[Float[Array, ""], DecoderSums | DiscriminatorSums]:
        """Returns the loss of decoder or discriminator, and its sums.

        Both decode the same codes: the compiler finds that, and decodes only once.
        """
        shown = self._seen(params, batch, keys)
        settings, judge = self.config.finish, params[DISCRIMINATOR]
        if net == DECODER:
            return decoder_loss(settings, self._network, judge, shown)
        penalized = step % settings.penalty_every == 0
        return judge_loss(settings, self._network, judge, shown, penalized)

    def _seen(self, params: dict[str, PyTree], batch: dict[str, Array], keys: Keys) -> Seen:
        vae = params[NET]
        return seen(self._model, vae, finished(params), batch["image"], batch.get(_SAMPLE), keys)

    def no_metrics(self) -> dict[str, DecoderSums | DiscriminatorSums]:
        """Returns the sums of no pictures, which are zero."""
        zero, thumbnail = jnp.zeros(()), jnp.zeros(64 * self.config.data.channels)
        return {
            DECODER: DecoderSums(*[zero] * 4, *[thumbnail] * 4),
            DISCRIMINATOR: DiscriminatorSums(*[zero] * 5),
        }

    def summarize(self, sums: dict[str, Any], step: int) -> dict[str, float]:
        """Returns the metrics of `tasks.finish.metrics.summarize`."""
        return summarize(sums[DECODER], sums[DISCRIMINATOR])

    def describe(self, values: dict[str, float]) -> str:
        """Formats the training metrics for the progress line."""
        return (
            f"pixel error {values['pixel_error']:.2f}  discriminator right about "
            f"{values['right_of_real']:.0%} real, {values['right_of_samples']:.0%} samples"
        )

    def describe_validation(self, values: dict[str, float]) -> str:
        """Formats the metrics of a validation for a line of the log."""
        return f"PSNR {values['psnr']:.2f}  SSIM {values['ssim']:.3f}"

    def health(self) -> Health:
        """Returns the checks of the discriminator's share, of variety and of colours."""
        return Health()

    def divergence(self, step: int, values: dict[str, float], lowest: float) -> str:
        """Returns why training has diverged: its pixel error is three times the lowest so far."""
        if not values["pixel_error"] > _DIVERGED * lowest:
            return ""
        return (
            f"the finish has diverged: the pixel error rose to {values['pixel_error']:.3g} grey "
            f"levels from its lowest value, {lowest:.3g}"
        )

    def loss_of(self, values: dict[str, float]) -> float:
        """Returns the mean absolute error of reconstructions, in grey levels."""
        return values["pixel_error"]

    def advice(self) -> str:
        """Returns advice to the user for training that diverges after every rollback."""
        return (
            f"lower config.finish.decoder_rate={self.config.finish.decoder_rate} or "
            f"config.finish.adversarial={self.config.finish.adversarial}"
        )

    def evaluator(self, mesh: Mesh) -> Evaluator:
        """Returns the evaluator of reconstructions."""
        model, likelihood = picture_model(self.config, finished=True, dtype=EXACT)
        return Evaluator(model, likelihood, finished, mesh)

    def picture_metrics(self, dataset: Dataset, mesh: Mesh) -> Callable | None:
        """Returns what measures samples; None without a validation split."""
        if not self.config.eval.metrics:
            return None
        chosen = metrics_in_training(self.config)
        measure = PictureMetrics(
            self.config, chosen, dataset, mesh, finished=True, codes=self._samples
        )
        return lambda params, check: measure({NET: finished(params)}, check)

    def gallery(self, dataset: Dataset, directory: Path) -> "FinishGallery":
        """Returns the gallery, which draws faces of the decoder into files of `directory`."""
        return FinishGallery(Gallery(self.config, dataset, directory, finished=True))

    def intermediates(self) -> dict[str, Callable]:
        """Returns the functions of what the discriminator sees, and of its judgement."""

        def judgement(params: dict[str, PyTree], batch: dict[str, Array], keys: Keys) -> PyTree:
            shown = self._seen(params, batch, keys)
            return {
                "pictures": shown._asdict(),
                "judgement": self._network.apply(
                    {"params": params[DISCRIMINATOR]}, shown.generated()
                ),
            }

        return {"generated pictures": judgement}


class FinishGallery:
    """Draws reconstructions, samples and interpolations of the decoder."""

    def __init__(self, gallery: Gallery):
        """Takes the gallery of a VAE."""
        self._gallery = gallery

    def draw(self, step: int, params: dict[str, PyTree], reporter: Any) -> None:
        """Writes the pictures; arguments as for `Gallery.draw`."""
        self._gallery.draw(step, {NET: finished(params)}, reporter)


def finished(params: Mapping[str, PyTree]) -> PyTree:
    """Returns the parameters of the finished VAE.

    Args:
      params: parameters of each network.
    """
    return finished_params(params[NET], params[DECODER])


def _with_rate(settings: OptimizerConfig, rate: float) -> OptimizerConfig:
    return dataclasses.replace(settings, learning_rate=rate)
