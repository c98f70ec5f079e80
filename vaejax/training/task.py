"""The protocol of a task: the loop trains whatever has these methods."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from vaejax.config import OptimizerConfig
from vaejax.data import Dataset
from vaejax.data.feed.pipeline import Arrays
from vaejax.records.ranking import Ranking

Batch = dict[str, Any]
"""Arrays by name, whose first axis is the example: those of `Task.examples`, and `index`."""
Values = dict[str, Any]
"""Metrics by name: numbers, and lists of numbers."""
Tensors = Callable[[dict[str, PyTree], Batch, Array], PyTree]
"""Computes tensors of an update from parameters, batch and keys, as `Task.loss` takes them."""


@runtime_checkable
class Health(Protocol):
    """Watches the metrics of a run, and warns once of each problem, with a remedy."""

    def training(self, step: int, values: Values) -> list[str]:
        """Returns new warnings about the training metrics of a window that ends at `step`."""
        ...

    def validation(self, train: Values | None, valid: Values) -> list[str]:
        """Returns new warnings about the metrics of a validation.

        Args:
          train: the newest training metrics; None before the first log.
          valid: the metrics of the validation.
        """
        ...


@runtime_checkable
class Evaluator(Protocol):
    """Evaluates networks during training."""

    def __call__(self, params: dict[str, PyTree], batches: Iterable[Batch]) -> Any:
        """Returns sums over the batches of `pipeline.eval_batches`; None if there are none.

        Args:
          params: parameters of each network, whole on every device.
          batches: this process's part of every batch.
        """
        ...

    def summarize(self, totals: Any) -> Values:
        """Returns the metrics of a validation, computed from its sums."""
        ...


@runtime_checkable
class PictureMetrics(Protocol):
    """Measures pictures that the networks generate, beside the `Evaluator`."""

    def __call__(self, params: dict[str, PyTree], check: Callable[[], None]) -> Values:
        """Returns metrics of generated pictures.

        Args:
          params: parameters of each network, whole on every device.
          check: is called before each batch; it may raise, to end the measurement.
        """
        ...


@runtime_checkable
class Gallery(Protocol):
    """Draws what the networks have learned."""

    def draw(self, step: int, params: dict[str, PyTree], reporter: Any) -> None:
        """Draws what the networks have learned after `step` updates.

        Args:
          step: number of updates so far.
          params: parameters of each network, on this process's first device.
          reporter: a `records.metric_log.Reporter`, which records the pictures.
        """
        ...


@runtime_checkable
class Task(Protocol):
    """What a run trains: its examples, networks, losses and metrics.

    Compiled functions are cached by the task, so a run uses the same object throughout.
    """

    @property
    def optimizers(self) -> Mapping[str, OptimizerConfig | None]:
        """The optimiser settings of each network by name; None for one that is not trained."""
        ...

    @property
    def best_by(self) -> Ranking:
        """Decides by the metrics of the validations which checkpoint is the best."""
        ...

    def __hash__(self) -> int:
        """Returns the hash, under which compiled functions are cached: it must never change."""
        ...

    @property
    def begins_trained(self) -> bool:
        """Whether networks are trained already, so that they are evaluated before any update."""
        ...

    @property
    def builds_on(self) -> Mapping[str, Any]:
        """What the task takes from an earlier stage, such as a digest, as JSON; may be empty."""
        ...

    def examples(self, dataset: Dataset) -> Mapping[str, Arrays]:
        """Returns the arrays that batches are cut from, by split, with a row for each picture.

        Raises:
          UserError: the data does not suit the task.
        """
        ...

    def init(self, key: PRNGKeyArray) -> dict[str, PyTree]:
        """Returns initial parameters of each network, float32."""
        ...

    def augment(self, batch: Batch, key: PRNGKeyArray) -> Batch:
        """Returns the batch as it is trained on; `key` is another one in each step."""
        ...

    def loss(
        self, net: str, params: dict[str, PyTree], batch: Batch, keys: Array, step: Int[Array, ""]
    ) -> tuple[Float[Array, ""], PyTree]:
        """Computes the loss that one network minimises.

        Args:
          net: name of the network.
          params: parameters of all networks.
          batch: the batch, as `augment` returned it.
          keys: random keys for noise, [batch], one for each example.
          step: number of updates before this one.

        Returns:
          The loss, a mean over the batch, and sums over the batch for the metrics.
        """
        ...

    def no_metrics(self) -> dict[str, PyTree]:
        """Returns the sums of `loss` over no examples, for each network that is trained."""
        ...

    def summarize(self, sums: dict[str, PyTree], step: int) -> Values:
        """Returns the metrics of a window that ends at `step`, computed from its sums."""
        ...

    def describe(self, values: Values) -> str:
        """Describes training metrics in a few words, for the progress line."""
        ...

    def describe_validation(self, values: Values) -> str:
        """Describes the metrics of a validation in a few words."""
        ...

    def health(self) -> Health:
        """Returns what watches the metrics of a run."""
        ...

    def divergence(self, step: int, values: Values, lowest: float) -> str:
        """Returns why training has diverged though its numbers are finite; empty if it has not.

        Args:
          step: number of updates so far.
          values: training metrics of the window that ends at `step`.
          lowest: the lowest `loss_of` of earlier windows; infinite if there was none.
        """
        ...

    def loss_of(self, values: Values) -> float:
        """Returns a window's loss from its training metrics; `divergence` gets the lowest."""
        ...

    def advice(self) -> str:
        """Returns what to change if training keeps diverging, the end of an error message."""
        ...

    def evaluator(self, mesh: Mesh) -> Evaluator:
        """Returns what evaluates the networks on the validation split."""
        ...

    def picture_metrics(self, dataset: Dataset, mesh: Mesh) -> PictureMetrics | None:
        """Returns what measures generated pictures at validations; None if nothing does.

        Raises:
          UserError: `config.eval` names metrics that cannot be measured.
        """
        ...

    def gallery(self, dataset: Dataset, directory: Path) -> Gallery:
        """Returns what draws pictures of the networks, as files in `directory`."""
        ...

    def intermediates(self) -> Mapping[str, Tensors]:
        """Returns functions of the tensors that losses are computed from, in order, by name.

        They are searched for the first tensor that is not finite, between the parameters and the
        losses, which every task has. The outputs of a function may be nested dicts, whose keys are
        searched in the order of insertion.
        """
        ...
