"""What the loop asks of a task: whatever has these methods can be trained."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from vaejax.config import OptimizerConfig
from vaejax.data import Dataset

Batch = dict[str, Any]
"""Arrays by name, the first axis of each the example: `image`, labels, ..."""
Values = dict[str, Any]
"""Metrics by name: numbers, and lists of numbers."""


@runtime_checkable
class Task(Protocol):
    """What a run learns.

    What is compiled for a task is kept by it: one object for each run.
    """

    @property
    def optimizers(self) -> Mapping[str, OptimizerConfig | None]:
        """The settings of each network's optimiser; None for a network that is not trained."""
        ...

    def __hash__(self) -> int:
        """One task, one hash: what is compiled for it is kept by it."""
        ...

    def init(self, key: PRNGKeyArray) -> dict[str, PyTree]:
        """Fresh parameters, float32, of each network."""
        ...

    def augment(self, batch: Batch, key: PRNGKeyArray) -> Batch:
        """The batch as it is trained on, with a chance of its own in each step."""
        ...

    def loss(
        self, net: str, params: dict[str, PyTree], batch: Batch, keys: Array, step: Int[Array, ""]
    ) -> tuple[Float[Array, ""], PyTree]:
        """What one network minimises, a mean over the batch, and sums over it for the metrics.

        Args:
          net: which.
          params: of all networks.
          batch: as `augment` left it.
          keys: of its noise, one for each example.
          step: updates before this one.
        """
        ...

    def no_metrics(self) -> dict[str, PyTree]:
        """The sums of `loss` over no batch, for each network that is trained."""
        ...

    def summarize(self, sums: dict[str, PyTree], step: int) -> Values:
        """What a person reads of the sums of some updates, the last of which was `step`'s."""
        ...

    def describe(self, values: Values) -> str:
        """The training metrics in a few words."""
        ...

    def describe_validation(self, values: Values) -> str:
        """The metrics of a validation in a few words."""
        ...

    def health(self) -> Any:
        """What watches over the metrics, as `tasks.vae.health.Health` does."""
        ...

    def divergence(self, step: int, values: Values, lowest: float) -> str:
        """Why training has diverged though its numbers are finite; empty where it has not.

        Args:
          step: updates so far.
          values: training metrics.
          lowest: the lowest `loss_of` of those before.
        """
        ...

    def loss_of(self, values: Values) -> float:
        """The loss of training metrics."""
        ...

    def evaluator(self, mesh: Mesh) -> Any:
        """Evaluates during training, as `tasks.vae.evaluation.Evaluator` does."""
        ...

    def gallery(self, dataset: Dataset, directory: Path) -> Any:
        """Draws what is learned, as `tasks.vae.gallery.Gallery` does."""
        ...

    def first_not_finite(
        self, params: dict[str, PyTree], batch: Batch, keys: Array, parts: Sequence
    ) -> tuple[str, Any] | None:
        """The name of the first tensor of an update that is not finite, and the rows it is of."""
        ...
