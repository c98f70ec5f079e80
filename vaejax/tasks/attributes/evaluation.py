"""Evaluates a network of attributes over a set of pictures, each counted once."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, PyTree, Shaped

from vaejax.config import Config
from vaejax.metrics.classification import (
    accuracy,
    average_precision,
    balanced_accuracy,
    cross_entropy,
    majority_accuracy,
    mean_of_known,
)
from vaejax.models import EXACT
from vaejax.models.attributes import build_attribute_network, logits_of
from vaejax.runtime.compiling import jit, precise
from vaejax.runtime.mesh import replicated, split_batch, to_devices
from vaejax.tasks.attributes.labels import LABEL

# Measured of each attribute, and summarised by the mean over the attributes.
_MEASURES: dict[str, Callable] = {
    "loss": cross_entropy,
    "accuracy": accuracy,
    "balanced_accuracy": balanced_accuracy,
    "average_precision": average_precision,
}


class Predictions(NamedTuple):
    """What was predicted of a set of pictures.

    Attributes:
      logits: one for each picture and attribute.
      labels: 1 where a picture has an attribute, else 0.
    """

    logits: Float[np.ndarray, "picture attribute"]
    labels: Shaped[np.ndarray, "picture attribute"]


class Evaluator:
    """Evaluates the network during training, in float32 whatever training computes in."""

    def __init__(self, config: Config, mesh: Mesh):
        """Compiles on the first call.

        Args:
          config: config of the run.
          mesh: mesh of the devices.
        """
        self._mesh = mesh
        network = build_attribute_network(config, EXACT)

        @precise
        def predict(
            params: PyTree,
            images: Array,
            labels: Array,
            mask: Bool[Array, "batch"],
        ) -> tuple[Array, Array, Array]:
            return logits_of(network, params, images), labels, mask

        # Everything comes back whole, so that every process of a run computes the same metrics.
        everywhere, split = replicated(mesh), split_batch(mesh)
        self._predict = jit(
            predict,
            mesh=mesh,
            in_shardings=(everywhere, split, split, split),
            out_shardings=everywhere,
        )

    def __call__(
        self, params: dict[str, PyTree], batches: Iterable[dict[str, np.ndarray]]
    ) -> Predictions | None:
        """Predicts the attributes of all pictures; returns None if there are no batches.

        Args:
          params: parameters of the run's only network by name, whole on every device.
          batches: what `data.feed.pipeline.eval_batches` yields.
        """
        (network,) = params.values()
        found = []
        for batch in batches:
            arrays = to_devices(batch, split_batch(self._mesh))
            results = self._predict(network, arrays["image"], arrays[LABEL], arrays["mask"])
            logits, labels, mask = jax.device_get(results)
            found.append((logits[mask], labels[mask]))
        return Predictions(*map(np.concatenate, zip(*found))) if found else None

    def summarize(self, predictions: Predictions) -> dict[str, float | list[float]]:
        """Computes the metrics of a validation.

        Returns:
          `loss` (nats), `accuracy`, `balanced_accuracy` and `average_precision`, means over the
          attributes for which they are defined; `majority_accuracy`, that of predicting the more
          frequent label; `pictures`, their number; and by attribute, in the order of the data, the
          list `NAME_by_attribute` of each of the first four.
        """
        found = {name: measure(*predictions) for name, measure in _MEASURES.items()}
        return {
            **{name: mean_of_known(values) for name, values in found.items()},
            "majority_accuracy": mean_of_known(majority_accuracy(predictions.labels)),
            "pictures": float(len(predictions.labels)),
            **{f"{name}_by_attribute": values.tolist() for name, values in found.items()},
        }
