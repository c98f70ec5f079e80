"""Converts a training state to a checkpoint's items `model`, `train` and `window`, and back.

Version 0.1 kept all of it as one item, with the layout of `StateOf01`.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
from flax import struct
from jax.sharding import NamedSharding
from jaxtyping import PyTree

from vaejax.records.checkpoints import STATE_OF_0_1, Checkpoints
from vaejax.training.state import Carry, Net, TrainState, Window

# The items of a checkpoint: averaged parameters by network; the rest of the state; the window.
MODEL, TRAIN, WINDOW = "model", "train", "window"
NET_OF_0_1, AVERAGE_OF_0_1 = "vae", "ema_params"


class WindowOf01(NamedTuple):
    """The window as version 0.1 saved it, for its single network."""

    updates: PyTree
    gradient_norm: PyTree
    sums: PyTree


class StateOf01(struct.PyTreeNode):
    """The state as version 0.1 saved it.

    Names and order of the fields must stay: the checkpoint is read by the names, and the digest
    depends on the order.
    """

    step: PyTree
    key: PyTree
    params: PyTree
    ema_params: PyTree
    moments: PyTree
    skipped: PyTree
    skipped_in_row: PyTree
    typical_norm: PyTree
    rollbacks: PyTree
    learning_rate_scale: PyTree
    window: WindowOf01


def to_items(carry: Carry) -> dict[str, PyTree]:
    """Returns a checkpoint's items, from a carry of arrays, shapes or shardings."""
    state, window = carry
    # Dictionaries without the fields that are None, such as the moments of an untrained network.
    rest = {
        name: {part: value for part, value in vars(net).items() if value is not None}
        for name, net in state.nets.items()
    }
    for net in rest.values():
        del net["average"]
    return {
        MODEL: {name: net.average for name, net in state.nets.items()},
        TRAIN: {**vars(state), "nets": rest},
        WINDOW: window,
    }


def from_items(items: Mapping[str, PyTree]) -> tuple[TrainState, Window | None]:
    """Returns state and window from the items of a checkpoint, also of version 0.1.

    This is the inverse of `to_items`. The window is None if the items lack it.
    """
    if STATE_OF_0_1 in items:
        return _from_01(items[STATE_OF_0_1])
    nets = {
        name: Net(**{"moments": None, **net}, average=items[MODEL][name])
        for name, net in items[TRAIN]["nets"].items()
    }
    return TrainState(**{**items[TRAIN], "nets": nets}), items.get(WINDOW)


def items_like(
    checkpoints: Checkpoints, step: int, like: Carry, shardings: Carry
) -> tuple[dict[str, PyTree], dict[str, PyTree]]:
    """Returns the items to restore from a checkpoint: (their shapes, their shardings).

    The window is left out if the checkpoint's window has other metrics.

    Args:
      checkpoints: the run's checkpoints.
      step: one of `checkpoints.steps()`.
      like: arrays or shapes of the state and window.
      shardings: the sharding of each array of `like`.

    Raises:
      DamagedCheckpoint: the checkpoint's metadata cannot be read.
    """
    if STATE_OF_0_1 in checkpoints.items(step):
        return {STATE_OF_0_1: _as_01(like)}, {STATE_OF_0_1: _as_01(shardings)}
    wanted, places = to_items(like), to_items(shardings)
    if not checkpoints.fits(step, WINDOW, wanted[WINDOW]):
        del wanted[WINDOW], places[WINDOW]
    return wanted, places


def restore_averages(
    checkpoints: Checkpoints, step: int, like: Carry, sharding: NamedSharding
) -> dict[str, PyTree]:
    """Restores and verifies the averaged parameters of each network, and reads nothing else.

    A checkpoint of version 0.1 that has a single digest for the whole state is read as a whole.

    Args:
      checkpoints: the run's checkpoints.
      step: one of `checkpoints.steps()`.
      like: shapes of the state and window.
      sharding: the sharding of every array.

    Returns:
      Parameters, float32, by the network's name.

    Raises:
      DamagedCheckpoint: they cannot be read, or are not what was saved.
      UserError: another version of vaejax saved it, whose state has other names or shapes.
    """
    if STATE_OF_0_1 not in checkpoints.items(step):
        return _restored(checkpoints, step, {MODEL: to_items(like)[MODEL]}, sharding)[MODEL]
    old = _as_01(like)
    average = checkpoints.restore_part(step, STATE_OF_0_1, AVERAGE_OF_0_1, old, sharding)
    if average is None:
        whole = _restored(checkpoints, step, {STATE_OF_0_1: old}, sharding)
        average = whole[STATE_OF_0_1].ema_params
    return {NET_OF_0_1: average}


def _restored(
    checkpoints: Checkpoints, step: int, like: dict[str, PyTree], sharding: NamedSharding
) -> dict[str, PyTree]:
    items = checkpoints.restore(step, like, jax.tree.map(lambda _: sharding, like))
    checkpoints.verify(step, items)
    return items


def _as_01(carry: Carry) -> StateOf01:
    state, window = carry
    net = state.nets[NET_OF_0_1]
    return StateOf01(
        step=state.step,
        key=state.key,
        params=net.params,
        ema_params=net.average,
        moments=net.moments,
        skipped=net.skipped,
        skipped_in_row=net.skipped_in_row,
        typical_norm=net.gradient_norm_ema,
        rollbacks=state.rollbacks,
        learning_rate_scale=state.learning_rate_scale,
        window=WindowOf01(
            window.updates, window.gradient_norm[NET_OF_0_1], window.sums[NET_OF_0_1]
        ),
    )


def _from_01(old: StateOf01) -> tuple[TrainState, Window]:
    net = Net(
        params=old.params,
        average=old.ema_params,
        moments=old.moments,
        gradient_norm_ema=old.typical_norm,
        skipped=old.skipped,
        skipped_in_row=old.skipped_in_row,
    )
    state = TrainState(
        step=old.step,
        key=old.key,
        nets={NET_OF_0_1: net},
        rollbacks=old.rollbacks,
        learning_rate_scale=old.learning_rate_scale,
    )
    window = old.window
    return state, Window(
        window.updates, {NET_OF_0_1: window.gradient_norm}, {NET_OF_0_1: window.sums}
    )
