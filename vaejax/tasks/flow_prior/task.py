"""The task of a run's second stage: a flow over a trained encoder's codes, by flow matching."""

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
from vaejax.models.noise import Keys, fold_in, normal
from vaejax.priors import DiagonalGaussian, FlowMatching, Gaussian, fit_gaussian
from vaejax.priors.diagonal_gaussian import fit_per_channel
from vaejax.priors.flow_matching import build_network, flow_matching_errors
from vaejax.priors.labels import Label, fit_labels, scaled
from vaejax.records.ranking import Ranking
from vaejax.tasks.flow_prior.evaluation import MeanLoss
from vaejax.tasks.flow_prior.gallery import Draw, Samples
from vaejax.tasks.flow_prior.hiding import with_hidden
from vaejax.tasks.flow_prior.labels import MIRRORED, Values
from vaejax.tasks.overfitting import OverfittingWatch

FLOW, WHITENING = "flow", "whitening"
# The arrays of a split: the normalised codes of its pictures and their scaled labels, and those of
# their mirror images.
_CODE, _LABELS = "code", "labels"
_MIRROR_IMAGE_OF = {_CODE: "mirrored", _LABELS: "mirrored_labels"}
# Folded into a code's key for the labels that are hidden.
_HIDDEN = 2
# Ratio of a loss to the lowest loss of the run, above which training has diverged.
_DIVERGED = 4.0

Codes = Float[np.ndarray, "picture latent"]
Sums = dict[str, Float[Array | np.ndarray, ""]]


class FlowPriorTask:
    """Trains the velocity network of `priors.FlowMatching`: a transformer if the codes are maps.

    Its parameters are two networks: the velocity network, and the Gaussian that normalises the
    codes, which is not trained. Vectors are whitened; of maps only each channel is standardised,
    so that what is near in the map stays near. With `config.flow.labels` the flow is conditioned
    on labels, some of which each update and each evaluation hides at random (`hiding`). For the
    methods see `training.task.Task`.

    Attributes:
      config: config of the stage.
      builds_on: identifies the encoder of the codes, as a JSON object.
    """

    best_by = Ranking("loss")
    begins_trained = False

    def __init__(
        self,
        config: Config,
        codes: Mapping[str, Codes],
        decode: Draw,
        builds_on: Mapping[str, Any],
        *,
        latent_shape: tuple[int, ...],
        mirrored: Codes | None = None,
        labels: Mapping[str, Values] | None = None,
    ):
        """Fits the Gaussian that normalises the codes, and normalises them.

        Args:
          config: config of the stage; `optimizer`, `flow` and `eval.grid` are read.
          codes: the codes of each split, one for each picture; `train` is needed.
          decode: maps codes to pictures.
          builds_on: identifies the encoder of the codes; it is saved in checkpoints.
          latent_shape: (dimensions,) of vectors, or (rows, columns, channels) of maps, which are
            in `codes` row by row as one vector each.
          mirrored: the codes of the mirror images of the training pictures. In each update, each
            code is replaced by that of the mirror image with probability 0.5.
          labels: the values of `config.flow.labels`, as `label_values` returns them.

        Raises:
          UserError: there are fewer than two training codes, or some are not finite.
        """
        self.config, self.builds_on = config, builds_on
        self.optimizers: dict[str, OptimizerConfig | None] = {
            FLOW: config.optimizer,
            WHITENING: None,
        }
        self._decode = decode
        self._shape = latent_shape
        self._network = build_network(config.flow, latent_shape, config.flow.dtype)
        known = [codes["train"], *([] if mirrored is None else [mirrored])]
        self._gaussian: Gaussian | DiagonalGaussian = (
            fit_per_channel(known, latent_shape[-1]) if self._of_maps else fit_gaussian(known)
        )
        # Normalised once and not in each update, where it would take a third of the time.
        self._examples = {split: {_CODE: self._normalised(some)} for split, some in codes.items()}
        if mirrored is not None:
            self._examples["train"][_MIRROR_IMAGE_OF[_CODE]] = self._normalised(mirrored)
        self._labels = self._with_labels(labels) if labels else ()

    def _with_labels(self, values: Mapping[str, Values]) -> tuple[Label, ...]:
        """Fits the scaling of labels, adds them to the examples, and returns them."""
        train = self._examples["train"]
        is_mirrored = _MIRROR_IMAGE_OF[_CODE] in train
        parts = ["train", *[MIRRORED] * is_mirrored]
        labels = fit_labels(self.config.flow.labels, [values[part] for part in parts])
        for split, arrays in self._examples.items():
            arrays[_LABELS] = scaled(labels, values[split])
        if is_mirrored:
            train[_MIRROR_IMAGE_OF[_LABELS]] = scaled(labels, values[MIRRORED])
        return labels

    @property
    def _of_maps(self) -> bool:
        return len(self._shape) > 1

    def _normalised(self, codes: Codes) -> Codes:
        return np.asarray(self._gaussian.to_noise(jnp.asarray(codes)))

    def prior(self, params: Mapping[str, PyTree]) -> FlowMatching:
        """Returns the prior with these parameters of both networks, which computes in float32."""
        normaliser = DiagonalGaussian if self._of_maps else Gaussian
        exact = dataclasses.replace(self.config.flow, remat=False)
        network = build_network(exact, self._shape)
        gaussian = normaliser(**params[WHITENING])
        return FlowMatching(gaussian, params[FLOW], network, self._labels)

    def examples(self, dataset: Dataset) -> dict[str, dict[str, Codes]]:
        """Returns the normalised codes of each split; `dataset` is not read.

        They are `code`, and for the training split `mirrored` if there are such codes. With labels
        there are also their scaled values, `labels` and `mirrored_labels`.
        """
        return self._examples

    def init(self, key: PRNGKeyArray) -> dict[str, PyTree]:
        """Initialises the flow, which then equals the Gaussian of the codes."""
        latents = jnp.zeros((1, len(self._gaussian.mean)))
        condition = jnp.zeros((1, len(self._labels), 2)) if self._labels else None
        flow = self._network.init(key, latents, jnp.zeros(1), condition)["params"]
        return {FLOW: flow, WHITENING: vars(self._gaussian)}

    def augment(self, batch: dict[str, Array], key: PRNGKeyArray) -> dict[str, Array]:
        """Replaces half of the codes at random by those of the mirror images, if there are such.

        The labels of these codes become those of the mirror images.
        """
        pairs = {name: other for name, other in _MIRROR_IMAGE_OF.items() if other in batch}
        if not pairs:
            return batch
        rest = {name: array for name, array in batch.items() if name not in pairs.values()}
        chosen = jax.random.bernoulli(key, 0.5, (len(batch[_CODE]), 1))
        return rest | {
            name: jnp.where(chosen, batch[other], batch[name]) for name, other in pairs.items()
        }

    def loss(
        self,
        net: str,
        params: dict[str, PyTree],
        batch: dict[str, Array],
        keys: Keys,
        step: Int[Array, ""],
    ) -> tuple[Float[Array, ""], Sums]:
        """Returns the flow matching loss, a mean over codes and latent dimensions, and its sums."""
        # Stratified times: evenly spaced from one random start, so that each is uniform in [0, 1]
        # but the batch mean of the loss varies less than with independent times.
        count = len(keys)
        # Another key than that of the first code's noise, which would have the same bits.
        start = jax.random.uniform(jax.random.fold_in(keys[0], 1))
        times = (start + jnp.arange(count, dtype=jnp.float32) / count) % 1.0
        if self._of_maps:
            times = logit_normal(times)
        errors = self._errors(params[FLOW], batch, keys, times)
        sums = {"loss": jnp.sum(errors), "count": jnp.float32(count)}
        return jnp.mean(errors), jax.lax.stop_gradient(sums)

    def _errors(
        self, params: PyTree, batch: dict[str, Array], keys: Keys, times: Float[Array, "batch"]
    ) -> Float[Array, "batch"]:
        codes, condition = batch[_CODE], None
        noise = normal(keys, codes.shape[1:])
        if self._labels:
            hiding = fold_in(keys, _HIDDEN)
            condition = with_hidden(hiding, batch[_LABELS], self.config.flow.label_dropout)
        return flow_matching_errors(self._network, params, codes, noise, times, condition)

    def no_metrics(self) -> dict[str, Sums]:
        """Returns the sums of no codes, which are zero."""
        return {FLOW: {"loss": jnp.zeros(()), "count": jnp.zeros(())}}

    def summarize(self, sums: dict[str, Sums], step: int) -> dict[str, float]:
        """Returns the mean of `loss` over the codes of a window of updates."""
        return {"loss": float(sums[FLOW]["loss"]) / float(sums[FLOW]["count"])}

    def describe(self, values: dict[str, float]) -> str:
        """Formats the metrics for the progress line."""
        return f"flow matching loss {values['loss']:.4f}"

    describe_validation = describe

    def health(self) -> OverfittingWatch:
        """Returns the watch that warns of overfitting to the codes."""
        return OverfittingWatch(
            "codes",
            "the best checkpoint becomes the prior, and more pictures would make a better one",
        )

    def divergence(self, step: int, values: dict[str, float], lowest: float) -> str:
        """Returns why training has diverged; empty if it has not.

        It has diverged if the loss is more than four times `lowest`, the lowest loss so far.
        """
        if not values["loss"] > _DIVERGED * lowest:
            return ""
        return (
            f"training has diverged: its loss rose to {values['loss']:.3g} from its lowest value, "
            f"{lowest:.3g}"
        )

    def loss_of(self, values: dict[str, float]) -> float:
        """Returns the loss per dimension from training metrics."""
        return values["loss"]

    def advice(self) -> str:
        """Returns advice to the user for training that diverges after every rollback."""
        return "fit another prior, such as gaussian or mixture"

    def evaluator(self, mesh: Mesh) -> MeanLoss:
        """Returns the evaluator of the loss over a split, with the same noise in each call."""
        return MeanLoss(FLOW, self._errors, mesh)

    def picture_metrics(self, dataset: Dataset, mesh: Mesh) -> None:
        """Returns None: only the model's own pictures are measured during training."""
        return None

    def gallery(self, dataset: Dataset, directory: Path) -> Samples:
        """Returns the gallery that draws faces from the flow into files of `directory`."""
        return Samples(self.prior, self._decode, self.config.eval.grid, directory)

    def intermediates(self) -> dict[str, Callable]:
        """Returns the function of the codes; the loss has no other tensor with a name."""
        return {_CODE: lambda params, batch, keys: batch[_CODE]}


def logit_normal(quantiles: Float[Array, "batch"]) -> Float[Array, "batch"]:
    """Maps quantiles, uniform in [0, 1), to times in [0, 1] whose logit is standard normal.

    More of the updates then fall on the middle of the paths, where the velocity is least certain
    (Esser et al., "Scaling rectified flow transformers", ICML 2024, section 3.1).
    """
    return jax.nn.sigmoid(jax.scipy.special.ndtri(quantiles))
