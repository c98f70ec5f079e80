"""Where a loss that is not finite comes from."""

import re
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, PyTree, UInt8

from vaejax import step
from vaejax.config import Config
from vaejax.data.pipeline import batch_indices
from vaejax.evidence import Evidence, evidence
from vaejax.likelihoods import Images, build_likelihood


def explain_not_finite(
    model: nn.Module,
    config: Config,
    params: dict,
    images: UInt8[np.ndarray, "picture height width channel"],
    at: int,
) -> str:
    """Names the first tensor that is not finite in the update of step `at`, and its examples.

    Args:
      model: the VAE.
      config: of the run.
      params: before the update.
      images: the training split.
      at: the step.
    """
    size = config.train.batch_size
    positions = np.arange(at * size, (at + 1) * size)
    index = batch_indices(config.train.seed, positions, len(images))
    name = _first_not_finite(model, config, params, jnp.asarray(images[index]), at)
    return (
        f"first tensor that is not finite: {name}; examples of that batch: {index.tolist()}; "
        "look at them, or lower config.optimizer.learning_rate"
    )


def _first_not_finite(
    model: nn.Module, config: Config, params: dict, images: Images, at: int
) -> str:
    """The tensor's path, if any is not finite.

    Looks at the parameters, then at the outputs of the modules in the order in which they run
    (of a ladder's stack of blocks, by block and then by name), then at the ELBO's terms, then at
    the gradients.
    """
    likelihood = build_likelihood(config)
    flip_key, noise_key = step.step_keys(jax.random.key(config.train.seed), jnp.asarray(at))
    if config.data.flip:
        images = step.mirror(images, flip_key)
    keys = jax.random.split(noise_key, images.shape[0])

    def features(params: dict) -> PyTree:
        return model.apply({"params": params}, images, keys, method="features")

    def capture(params: dict, method: str, *inputs: PyTree) -> dict:
        _, extra = model.apply(
            {"params": params}, *inputs, method=method, dropout=keys, capture_intermediates=True
        )
        return extra["intermediates"]

    def terms(params: dict) -> Evidence:
        return evidence(model, params, likelihood, images, keys, dropout=keys)

    stages = {
        "parameters": lambda params: params,
        "encoder": lambda params: capture(params, "features", images),
        "features": features,
        "decoder and prior": lambda params: capture(params, "infer", features(params), keys),
        "log_likelihood": lambda params: terms(params).log_likelihood,
        "kl": lambda params: terms(params).inference.kl,
        "gradient": jax.grad(lambda params: -jnp.mean(terms(params).elbo())),
    }
    for name, tensors in stages.items():
        found = _first(_in_order(tensors, params))
        if found is not None:
            return f"{name}{found}"
    return "none: the batch is finite now, so look for numbers that differ from run to run"


def _in_order(tensors: Callable[[dict], PyTree], params: dict) -> dict[str, np.ndarray]:
    """What `tensors` gives, by path, in the order in which its dictionaries were filled.

    JAX sorts dictionaries by name, so the order is taken down while it traces.
    """
    names = []

    @jax.jit
    def leaves(params: dict) -> list[Array]:
        named = list(_named(tensors(params)))
        names[:] = [name for name, _ in named]
        return [leaf for _, leaf in named]

    return {name: leaf for leaf, name in zip(jax.device_get(leaves(params)), names)}


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
    first = min(rows, key=rows.get)
    return f"{first}, block {range(len(bad[first]))[::turn][rows[first]]}"


# Modules of a ladder whose outputs have the block as their first axis.
_STACK = re.compile(r"\['(bottom_up|top_down)_\d+'\]")


def _first_row(leaf: np.ndarray) -> int:
    """The first index of the first axis at which something is not finite."""
    return int(np.argmin(np.all(np.isfinite(leaf), axis=tuple(range(1, leaf.ndim)))))
