"""What an update changes: networks and their optimisers' state; and the metrics it adds up."""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from flax import struct
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from vaejax.config import OptimizerConfig
from vaejax.data import Dataset
from vaejax.training.optimizer import no_moments

Batch = dict[str, Any]
"""Arrays by name, the first axis of each the example: `image`, labels, ..."""
Values = dict[str, Any]
"""Metrics by name: numbers, and lists of numbers."""


@runtime_checkable
class Task(Protocol):
    """What a run learns.

    Attributes:
      optimizers: the settings of each network's optimiser, by the network's name; None for a
        network that is not trained.
    """

    optimizers: Mapping[str, OptimizerConfig | None]

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


class Net(struct.PyTreeNode):
    """One network in training.

    The fields carry no array types: JAX and Orbax rebuild them with shapes, shardings and
    placeholders in their places.

    Attributes:
      params, average: float32, its parameters and their running average.
      moments: of the gradients, as `optimizer.update` keeps them; None where it is not trained.
      gradient_norm_ema: float32, a running geometric mean of the gradient's norm; 0 before the
        first update.
      skipped: int32, updates skipped because loss or gradient was not finite.
      skipped_in_row: int32, those since the last applied update.
    """

    params: PyTree
    average: PyTree
    moments: PyTree
    gradient_norm_ema: PyTree
    skipped: PyTree
    skipped_in_row: PyTree


class TrainState(struct.PyTreeNode):
    """With the data it determines the rest of a run.

    Attributes:
      step: int32, updates tried so far, applied or skipped.
      key: uint32[2], the root of all random numbers. In the state and not in the program, so that
        runs from several seeds share what was compiled once.
      nets: `Net` by name.
      rollbacks: int32, so far.
      learning_rate_scale: float32, lowered at each rollback.
    """

    step: PyTree
    key: PyTree
    nets: dict[str, Net]
    rollbacks: PyTree
    learning_rate_scale: PyTree

    def parameters(self) -> int:
        """How many numbers are learned."""
        nets = (net for net in self.nets.values() if net.moments is not None)
        return sum(leaf.size for net in nets for leaf in jax.tree.leaves(net.params))

    def skipped(self) -> int:
        """Updates skipped so far, by the network that skipped most."""
        return max(int(net.skipped) for net in self.nets.values())

    def skipped_in_row(self) -> int:
        """Updates skipped since the last applied one, likewise."""
        return max(int(net.skipped_in_row) for net in self.nets.values())


class Window(NamedTuple):
    """Sums over the updates since the last log, kept on the devices.

    They go from update to update and are saved with the state, so nothing is read back between two
    logs, and a run that resumes in the middle of a window logs the same line as one that never
    stopped. A checkpoint without them, or with others, begins a new window.

    Attributes:
      updates: how many were applied.
      gradient_norm: by network.
      sums: by network, of what `Task.loss` gives.
    """

    updates: Float[Array, ""]
    gradient_norm: dict[str, Float[Array, ""]]
    sums: dict[str, PyTree]


class Carry(NamedTuple):
    """What one update leaves to the next."""

    state: TrainState
    window: Window


def initial_carry(task: Task, key: PRNGKeyArray) -> Carry:
    """Before the first update."""
    zero = jnp.zeros((), jnp.int32)
    nets = {
        name: Net(
            params=params,
            average=params,
            moments=no_moments(params) if task.optimizers[name] else None,
            gradient_norm_ema=jnp.zeros((), jnp.float32),
            skipped=zero,
            skipped_in_row=zero,
        )
        for name, params in task.init(key).items()
    }
    state = TrainState(
        step=zero,
        key=jax.random.key_data(key),
        nets=nets,
        rollbacks=zero,
        learning_rate_scale=jnp.ones((), jnp.float32),
    )
    # An update donates every buffer, so no two fields may share one.
    return jax.tree.map(jnp.copy, Carry(state, empty_window(task)))


def empty_window(task: Task) -> Window:
    """A window over no updates."""
    sums = task.no_metrics()
    return Window(
        jnp.zeros((), jnp.float32), {name: jnp.zeros((), jnp.float32) for name in sums}, sums
    )


@functools.cache
def starting(task: Task) -> Callable[[PRNGKeyArray], Carry]:
    """`initial_carry` of a key; one function for each task, which JAX then traces only once."""
    return functools.partial(initial_carry, task)


def shapes(task: Task) -> Carry:
    """A state and window as shapes and types; nothing is computed."""
    return jax.eval_shape(starting(task), jax.random.key(0))
