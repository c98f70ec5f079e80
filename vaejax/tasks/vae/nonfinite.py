"""Finds the first tensor of an update that is NaN or infinite."""

import re
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jaxtyping import Array, Int64, PyTree

from vaejax.likelihoods import Images, Likelihood
from vaejax.models.noise import Keys
from vaejax.tasks.vae.evidence import Evidence, evidence


def first_not_finite(
    model: nn.Module,
    likelihood: Likelihood,
    params: dict,
    images: Images,
    keys: Keys,
    parts: Sequence[Int64[np.ndarray, "row"]],
) -> tuple[str, Int64[np.ndarray, "row"]] | None:
    """The name of the first tensor of an update that is not finite, and the rows it is of.

    None where all are finite.

    Args:
      model: the VAE.
      likelihood: likelihood of its pictures.
      params: before the update.
      images: images of the batch, as they were trained on.
      keys: keys of their noise.
      parts: rows of the batch to look at together: as many as a device has in training.
    """
    for name, look in _stages(model, likelihood).items():
        # Parameters are the same for all.
        for rows in parts[:1] if name == "parameters" else parts:
            found = _first(look(params, images[rows], keys[rows]))
            if found is not None:
                return f"{name}{found}", rows
    return None


def _stages(model: nn.Module, likelihood: Likelihood) -> dict[str, Callable]:
    """Where to look, in this order: (params, images, keys) -> tensors by path.

    The parameters, then the outputs of the modules in the order in which they run (of a ladder's
    stack of blocks, by block and then by name), then the ELBO's terms, then the gradients and
    their norm, which may be too large for float32 where they are not.
    """

    def features(params: dict, images: Images, keys: Keys) -> PyTree:
        return model.apply({"params": params}, images, keys, method="features")

    def capture(params: dict, method: str, *inputs: PyTree, dropout: Keys) -> dict:
        _, extra = model.apply(
            {"params": params}, *inputs, method=method, dropout=dropout, capture_intermediates=True
        )
        return extra["intermediates"]

    def encoder(params: dict, images: Images, keys: Keys) -> dict:
        return capture(params, "features", images, dropout=keys)

    def decoder(params: dict, images: Images, keys: Keys) -> dict:
        return capture(params, "infer", features(params, images, keys), keys, dropout=keys)

    def terms(params: dict, images: Images, keys: Keys) -> Evidence:
        return evidence(model, params, likelihood, images, keys, dropout=keys)

    gradient = jax.grad(lambda *inputs: -jnp.mean(terms(*inputs).elbo()))
    stages = {
        "parameters": lambda params, images, keys: params,
        "encoder": encoder,
        "features": features,
        "decoder and prior": decoder,
        "log_likelihood": lambda *inputs: terms(*inputs).log_likelihood,
        "kl": lambda *inputs: terms(*inputs).inference.kl,
        "gradient": gradient,
        "norm of the gradient": lambda *inputs: optax.tree.norm(gradient(*inputs)),
    }
    return {name: _in_order(tensors) for name, tensors in stages.items()}


def _in_order(tensors: Callable[..., PyTree]) -> Callable[..., dict[str, np.ndarray]]:
    """What `tensors` gives, by path, in the order in which its dictionaries were filled.

    JAX sorts dictionaries by name, so the order is taken down while it traces.
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


def _named(tensors: PyTree, path: str = "") -> Iterator[tuple[str, Array]]:
    if not isinstance(tensors, dict):
        for rest, leaf in jax.tree_util.tree_leaves_with_path(tensors):
            yield path + jax.tree_util.keystr(rest), leaf
        return
    for name, value in tensors.items():
        yield from _named(value, f"{path}[{name!r}]")


def _first(tensors: dict[str, np.ndarray]) -> str | None:
    """The first that is not finite; of a stack of blocks, in the first block that has one."""
    bad = {name: leaf for name, leaf in tensors.items() if not np.all(np.isfinite(leaf))}
    if not bad:
        return None
    first = next(iter(bad))
    if not (stack := _STACK.match(first)):
        return first
    # An encoder's blocks run from the last to the first.
    turn = -1 if stack[1] == "bottom_up" else 1
    rows = {
        name: _first_row(leaf[::turn]) for name, leaf in bad.items() if name.startswith(stack[0])
    }
    first = min(rows, key=rows.__getitem__)
    return f"{first}, block {range(len(bad[first]))[::turn][rows[first]]}"


# Modules of a ladder whose outputs have the block as their first axis.
_STACK = re.compile(r"\['(bottom_up|top_down)_\d+'\]")


def _first_row(leaf: np.ndarray) -> int:
    """The first index of the first axis at which something is not finite."""
    return int(np.argmin(np.all(np.isfinite(leaf), axis=tuple(range(1, leaf.ndim)))))
