"""Finds the first tensor of an update that is NaN or infinite."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
import optax
from jaxtyping import Array, Int, Int64, PyTree

from vaejax.training.task import Batch, Task, Tensors


def first_not_finite(
    task: Task,
    params: dict[str, PyTree],
    batch: Batch,
    keys: Array,
    step: Int[Array, ""],
    parts: Sequence[Int64[np.ndarray, "row"]],
) -> tuple[str, Int64[np.ndarray, "row"] | None] | None:
    """Finds the first tensor of an update that is NaN or infinite.

    Args:
      task: what is trained.
      params: parameters of each network before the update, on one device.
      batch: the batch, as `Task.augment` returned it.
      keys: one key for each example, for its noise.
      step: number of updates before this one.
      parts: rows of the batch that are computed together, as many as a device has in training.

    Returns:
      The tensor's name, and the entry of `parts` in which it was found (None for a parameter); None
      if all tensors are finite.
    """
    if bad := _first(dict(_named(jax.device_get(params)))):
        return f"parameters{bad}", None
    for name, tensors in _stages(task, step).items():
        look = _by_name(tensors)
        for rows in parts:
            some = jax.tree.map(lambda leaf, rows=rows: leaf[rows], batch)
            found = look(params, some, keys[rows])
            if (bad := _first(found)) is not None:
                return f"{name}{bad}", rows
    return None


def _first(tensors: dict[str, np.ndarray]) -> str | None:
    """Returns the path of the first tensor that is not finite; None if all are finite."""
    return next((path for path, leaf in tensors.items() if not np.all(np.isfinite(leaf))), None)


def _stages(task: Task, step: Int[Array, ""]) -> dict[str, Tensors]:
    """Functions of an update's tensors, in the order in which the update computes them.

    The norm of a gradient may overflow float32 although the gradient is finite.
    """

    def loss_of(net: str) -> Tensors:
        def loss(params: dict[str, PyTree], batch: Batch, keys: Array) -> Array:
            return task.loss(net, params, batch, keys, step)[0]

        return loss

    def gradient_of(net: str) -> Tensors:
        def gradient(params: dict[str, PyTree], batch: Batch, keys: Array) -> PyTree:
            def loss(own: PyTree) -> Array:
                return loss_of(net)({**params, net: own}, batch, keys)

            return jax.grad(loss)(params[net])

        return gradient

    def norm_of(net: str) -> Tensors:
        return lambda *inputs: optax.tree.norm(gradient_of(net)(*inputs))

    stages: dict[str, Tensors] = dict(task.intermediates())
    for net, optimizer in task.optimizers.items():
        if optimizer is not None:
            stages[f"loss of {net}"] = loss_of(net)
            stages[f"gradient of {net}"] = gradient_of(net)
            stages[f"norm of the gradient of {net}"] = norm_of(net)
    return stages


def _by_name(tensors: Tensors) -> Callable[..., dict[str, np.ndarray]]:
    """Jits `tensors`; its outputs are returned by path, in the insertion order of their dicts.

    JAX sorts the keys of dictionaries, so the order is recorded while the function is traced.
    """
    names: list[str] = []

    @jax.jit
    def leaves(*inputs: PyTree) -> list[Array]:
        named = list(_named(tensors(*inputs)))
        names[:] = [name for name, _ in named]
        return [leaf for _, leaf in named]

    def look(*inputs: PyTree) -> dict[str, np.ndarray]:
        return {name: leaf for leaf, name in zip(jax.device_get(leaves(*inputs)), names)}

    return look


def _named(tensors: PyTree, path: str = "") -> Iterator[tuple[str, Any]]:
    if not isinstance(tensors, dict):
        for rest, leaf in jax.tree_util.tree_leaves_with_path(tensors):
            yield path + jax.tree_util.keystr(rest), leaf
        return
    for name, value in tensors.items():
        yield from _named(value, f"{path}[{name!r}]")
