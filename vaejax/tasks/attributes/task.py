"""A network that predicts binary attributes of pictures (CelebA: Liu et al. 2015)."""

import functools
import math
from collections.abc import Callable
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
from vaejax.models.attributes import (
    build_attribute_network,
    features_of,
    init_attribute_network,
    logits_of,
)
from vaejax.records.ranking import Ranking
from vaejax.tasks.attributes.evaluation import Evaluator
from vaejax.tasks.attributes.gallery import Gallery
from vaejax.tasks.attributes.labels import LABEL, check_labels
from vaejax.tasks.augmentation import mirror
from vaejax.tasks.overfitting import OverfittingWatch

NET = "attributes"
# Training has diverged if its loss exceeds this, in nats: twice the log 2 of probabilities of 0.5,
# with which training begins.
_DIVERGED = 2 * math.log(2)

Sums = dict[str, Float[Array | np.ndarray, ""]]


class AttributeTask:
    """Trains one network by the binary cross-entropy of all attributes.

    For the methods see `training.task.Task`.

    Attributes:
      config: config of the run.
      network: the Linen module.
    """

    # The cross-entropy judges the probabilities of all pictures. Balanced accuracy sees only which
    # are above 0.5, and for a rare attribute varies with the few pictures that have it.
    best_by = Ranking("loss")
    begins_trained = False

    def __init__(self, config: Config):
        """Builds the network; initialises no parameters.

        Args:
          config: config of the run, whose model is a network of attributes.
        """
        self.config = config
        self.network = build_attribute_network(config)
        self.optimizers: dict[str, OptimizerConfig | None] = {NET: config.optimizer}
        self.builds_on: dict[str, Any] = {}

    def examples(self, dataset: Dataset) -> dict[str, Arrays]:
        """Returns the pictures and the attributes of each split.

        Raises:
          UserError: the data has no attributes, or another number of them.
        """
        check_labels(dataset, self.network.attributes)
        return {name: split.arrays([LABEL]) for name, split in dataset.splits.items()}

    def init(self, key: PRNGKeyArray) -> dict[str, PyTree]:
        """Initialises the parameters, float32."""
        return {NET: init_attribute_network(self.network, self.config, key)}

    def augment(self, batch: dict[str, Array], key: PRNGKeyArray) -> dict[str, Array]:
        """Mirrors half of the pictures at random if `config.data.flip` is set.

        An attribute stays as it is: none of CelebA's depends on the side.
        """
        return mirror(batch, key) if self.config.data.flip else batch

    def loss(
        self,
        net: str,
        params: dict[str, PyTree],
        batch: dict[str, Array],
        keys: Array,
        step: Int[Array, ""],
    ) -> tuple[Float[Array, ""], Sums]:
        """Returns the binary cross-entropy in nats, a mean over pictures and attributes, and sums.

        Args:
          net: name of the network, `NET`.
          params: parameters of the network by name.
          batch: `image`, uint8 [batch, height, width, channel], and `attributes`, 0 or 1
            [batch, attribute].
          keys: not used, since nothing is random.
          step: not used.
        """
        logits = self._logits(params, batch)
        labels = batch[LABEL].astype(jnp.float32)
        # -log p of the label, where p is the logistic function of the logit.
        losses = jnp.mean(jax.nn.softplus(logits) - labels * logits, axis=1)
        right = jnp.mean((logits > 0) == (labels > 0), axis=1, dtype=jnp.float32)
        count = jnp.float32(len(losses))
        sums = {"loss": jnp.sum(losses), "accuracy": jnp.sum(right), "count": count}
        return jnp.mean(losses), jax.lax.stop_gradient(sums)

    def _logits(self, params: dict[str, PyTree], batch: dict[str, Array]) -> Array:
        return logits_of(self.network, params[NET], batch["image"])

    def no_metrics(self) -> dict[str, Sums]:
        """Returns the sums of no pictures, which are zero."""
        return {NET: {name: jnp.zeros(()) for name in ("loss", "accuracy", "count")}}

    def summarize(self, sums: dict[str, Sums], step: int) -> dict[str, float]:
        """Returns the means of `loss` (nats) and `accuracy` over the pictures of a window."""
        own = sums[NET]
        return {name: float(own[name]) / float(own["count"]) for name in ("loss", "accuracy")}

    def describe(self, values: dict[str, float]) -> str:
        """Formats the training metrics for the progress line."""
        return f"loss {values['loss']:.4f} nats  accuracy {values['accuracy']:.2%}"

    def describe_validation(self, values: dict[str, float]) -> str:
        """Formats the metrics of a validation for a line of the log."""
        return (
            f"loss {values['loss']:.4f} nats  accuracy {values['accuracy']:.2%} (majority "
            f"{values['majority_accuracy']:.2%})  balanced {values['balanced_accuracy']:.2%}  "
            f"average precision {values['average_precision']:.3f}"
        )

    def health(self) -> OverfittingWatch:
        """Returns the watch that warns of overfitting to the training pictures."""
        return OverfittingWatch(
            "pictures",
            "the best checkpoint is kept, so stop, or use more pictures, config.data.flip, a "
            "smaller network or more config.optimizer.weight_decay",
        )

    def divergence(self, step: int, values: dict[str, float], lowest: float) -> str:
        """Returns why training has diverged: its loss is twice that of guessing; else empty."""
        if not values["loss"] > _DIVERGED:
            return ""
        return (
            f"training has diverged: its loss is {values['loss']:.3g} nats, and guessing costs "
            f"{math.log(2):.2g}"
        )

    def loss_of(self, values: dict[str, float]) -> float:
        """Returns the loss in nats from training metrics."""
        return values["loss"]

    def advice(self) -> str:
        """Returns advice to the user for training that diverges after every rollback."""
        return f"lower config.optimizer.learning_rate={self.config.optimizer.learning_rate:g}"

    def evaluator(self, mesh: Mesh) -> Evaluator:
        """Returns the evaluator of the validation split."""
        return Evaluator(self.config, mesh)

    def picture_metrics(self, dataset: Dataset, mesh: Mesh) -> None:
        """Returns None: the network generates no pictures."""
        return None

    def gallery(self, dataset: Dataset, directory: Path) -> Gallery:
        """Returns the gallery, which shows faces by their attributes in files of `directory`."""
        return Gallery(self.config, dataset, directory)

    def intermediates(self) -> dict[str, Callable]:
        """Returns the functions of the features and of the logits, with the arguments of `loss`."""
        return {
            name: lambda params, batch, keys, of=of: of(self.network, params[NET], batch["image"])
            for name, of in {"features": features_of, "logits": logits_of}.items()
        }


@functools.cache
def attribute_task(config: Config) -> AttributeTask:
    """Returns the task of a config, cached, so that JAX traces its functions only once."""
    return AttributeTask(config)
