"""The protocol of a task: the loop trains whatever has these methods."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from vaejax.config import OptimizerConfig
from vaejax.data import Dataset
from vaejax.data.feed.pipeline import Arrays

Batch = dict[str, Any]
"""Arrays by name, the first axis of each the example: those of `Task.examples`, and `index`."""
Values = dict[str, Any]
"""Metrics by name: numbers, and lists of numbers."""


@runtime_checkable
class Health(Protocol):
    """Watches the metrics of a run, and says of each ailment once what to do."""

    def training(self, step: int, values: Values) -> list[str]:
        """New complaints about the training metrics of some updates, the last of them `step`'s."""
        ...

    def validation(self, train: Values | None, valid: Values) -> list[str]:
        """New complaints about a validation beside the newest training metrics, if any."""
        ...


@runtime_checkable
class Evaluator(Protocol):
    """Evaluates networks during training."""

    def __call__(self, params: dict[str, PyTree], batches: Iterable[Batch]) -> Any:
        """Sums over the batches of `pipeline.eval_batches`; None if there are none.

        Args:
          params: parameters of each network, whole on every device.
          batches: batches of this process.
        """
        ...

    def summarize(self, totals: Any) -> Values:
        """What a person reads of the sums."""
        ...


@runtime_checkable
class Gallery(Protocol):
    """Draws what is learned."""

    def draw(self, step: int, params: dict[str, PyTree], reporter: Any) -> None:
        """Draws the networks after so many updates.

        Args:
          step: updates so far.
          params: parameters of each network, on this process's first device.
          reporter: for pictures, a `records.metric_log.Reporter`.
        """
        ...


@runtime_checkable
class Task(Protocol):
    """What a run learns.

    What is compiled for a task is kept by it: one object for each run.
    """

    @property
    def optimizers(self) -> Mapping[str, OptimizerConfig | None]:
        """The settings of each network's optimiser; None for a network that is not trained."""
        ...

    @property
    def best_by(self) -> str:
        """The validation figure that decides which checkpoint is the best: lower is better."""
        ...

    def __hash__(self) -> int:
        """One task, one hash: what is compiled for it is kept by it."""
        ...

    @property
    def builds_on(self) -> Mapping[str, Any]:
        """What the task has from an earlier stage, such as its digest, as JSON; else nothing."""
        ...

    def examples(self, dataset: Dataset) -> Mapping[str, Arrays]:
        """The arrays that batches are cut from, by split, with a row for each picture.

        Raises:
          UserError: the data does not suit the task.
        """
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
          params: parameters of all networks.
          batch: as `augment` left it.
          keys: keys of its noise, one for each example.
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

    def health(self) -> Health:
        """What watches over the metrics of a run."""
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

    def advice(self) -> str:
        """What to change where training diverges again and again."""
        ...

    def evaluator(self, mesh: Mesh) -> Evaluator:
        """What evaluates the networks on the validation split."""
        ...

    def gallery(self, dataset: Dataset, directory: Path) -> Gallery:
        """What draws the networks into files of `directory`."""
        ...

    def first_not_finite(
        self, params: dict[str, PyTree], batch: Batch, keys: Array, parts: Sequence
    ) -> tuple[str, Any] | None:
        """The name of the first tensor of an update that is not finite, and the rows it is of."""
        ...
