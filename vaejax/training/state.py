"""The training state: networks with their optimisers' state, and the metrics of a window."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from vaejax.training.optimizer import no_moments
from vaejax.training.task import Task


class Net(struct.PyTreeNode):
    """One network in training.

    The fields carry no array types: JAX and Orbax rebuild them with shapes, shardings and
    placeholders in their places.

    Attributes:
      params: float32, its parameters.
      average: float32, the running average of its parameters.
      moments: means of the gradients, as `optimizer.update` keeps them; None where the network
        is not trained.
      gradient_norm_ema: float32, a running geometric mean of the gradient's norm; 0 before the
        first update.
      skipped: int32, updates skipped because loss or gradient was not finite.
      skipped_in_row: int32, updates skipped since the last applied one.
    """

    params: PyTree
    average: PyTree
    moments: PyTree
    gradient_norm_ema: PyTree
    skipped: PyTree
    skipped_in_row: PyTree


class TrainState(struct.PyTreeNode):
    """The training state. Together with config and data it determines the rest of a run.

    Attributes:
      step: int32, updates tried so far, applied or skipped.
      key: uint32[2], the root of all random numbers. It is in the state and not in the program, so
        that runs from several seeds share one compiled program.
      nets: the networks by name.
      rollbacks: int32, rollbacks so far that are not forgotten.
      learning_rate_scale: float32, factor of the learning rate; each rollback lowers it from 1.
    """

    step: PyTree
    key: PyTree
    nets: dict[str, Net]
    rollbacks: PyTree
    learning_rate_scale: PyTree

    def parameters(self) -> int:
        """Counts the parameters of the networks that are trained."""
        nets = (net for net in self.nets.values() if net.moments is not None)
        return sum(leaf.size for net in nets for leaf in jax.tree.leaves(net.params))

    def skipped(self) -> int:
        """Returns how many updates were skipped so far, by the network that skipped most."""
        return max(int(net.skipped) for net in self.nets.values())

    def skipped_in_row(self) -> int:
        """Returns how many were skipped since the last applied one, by the network with most."""
        return max(int(net.skipped_in_row) for net in self.nets.values())


class Window(NamedTuple):
    """Sums over the updates since the last log, kept on the devices.

    They go from update to update and are saved with the state, so nothing is read back between two
    logs, and a run that resumes in the middle of a window logs the same line as one that never
    stopped. A run that resumes from a checkpoint without them, or with other metrics, begins a new
    window.

    Attributes:
      updates: number of updates that were applied.
      gradient_norm: sum of the gradient's norms, by network.
      sums: sums of the metrics that `Task.loss` returns, by network.
    """

    updates: Float[Array, ""]
    gradient_norm: dict[str, Float[Array, ""]]
    sums: dict[str, PyTree]


class Carry(NamedTuple):
    """What one update passes on to the next."""

    state: TrainState
    window: Window


def initial_carry(task: Task, key: PRNGKeyArray) -> Carry:
    """Returns the state and window before the first update.

    Args:
      task: what is trained.
      key: the key for the initial parameters, and the root of all random numbers of the run.
    """
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
    """Returns a window over no updates."""
    sums = task.no_metrics()
    return Window(
        jnp.zeros((), jnp.float32), {name: jnp.zeros((), jnp.float32) for name in sums}, sums
    )


@functools.cache
def starting(task: Task) -> Callable[[PRNGKeyArray], Carry]:
    """Returns `initial_carry` as a function of the key alone.

    It is the same function each time for the same task, so JAX traces it only once.
    """
    return functools.partial(initial_carry, task)


def shapes(task: Task) -> Carry:
    """Returns shapes and types of a task's state and window; computes nothing."""
    return jax.eval_shape(starting(task), jax.random.key(0))
