"""The tensors that the loss of a VAE is computed from, to find the first that is not finite."""

import re
from collections.abc import Callable
from typing import Any

import jax
from flax import linen as nn
from jaxtyping import Array, PyTree

from vaejax.likelihoods import Images, Likelihood
from vaejax.models.noise import Keys
from vaejax.tasks.vae.evidence import Evidence, evidence

# The modules of a ladder whose outputs have the block as their first axis.
_STACK = re.compile(r"(bottom_up|top_down)_\d+")


def intermediates(
    model: nn.Module,
    likelihood: Likelihood,
    seen: Callable[[Images, Keys], Images] = lambda images, keys: images,
    **how: Any,
) -> dict[str, Callable[[PyTree, Images, Keys], PyTree]]:
    """Returns functions (params, images, keys) -> tree of tensors, in the order of computation.

    They give the outputs of the modules in the order in which they run (in a ladder's stack of
    blocks, by block and then by name), and then the terms of the ELBO.

    Args:
      model: the VAE or ladder.
      likelihood: p(x|z).
      seen: returns the pictures that are encoded instead of the batch's.
      **how: further keyword arguments of the model's `infer`.
    """

    def features(params: PyTree, images: Images, keys: Keys) -> PyTree:
        return model.apply({"params": params}, seen(images, keys), keys, method="features")

    def capture(params: PyTree, method: str, *inputs: PyTree, **how: Any) -> dict:
        _, extra = model.apply(
            {"params": params}, *inputs, method=method, capture_intermediates=True, **how
        )
        return {name: _by_block(name, outputs) for name, outputs in extra["intermediates"].items()}

    def encoder(params: PyTree, images: Images, keys: Keys) -> dict:
        return capture(params, "features", seen(images, keys), dropout=keys)

    def decoder(params: PyTree, images: Images, keys: Keys) -> dict:
        found = features(params, images, keys)
        return capture(params, "infer", found, keys, dropout=keys, **how)

    def terms(params: PyTree, images: Images, keys: Keys) -> Evidence:
        shown = seen(images, keys)
        return evidence(model, params, likelihood, images, keys, dropout=keys, seen=shown, **how)

    def log_likelihood(*inputs: PyTree) -> Array:
        return terms(*inputs).log_likelihood

    def kl(*inputs: PyTree) -> Array:
        return terms(*inputs).inference.kl

    return {
        "encoder": encoder,
        "features": features,
        "decoder and prior": decoder,
        "log_likelihood": log_likelihood,
        "kl": kl,
    }


def _by_block(name: str, outputs: PyTree) -> PyTree:
    """Splits the stacked outputs of a ladder's blocks by block; other outputs stay as they are."""
    if not _STACK.fullmatch(name):
        return outputs
    count = len(jax.tree.leaves(outputs)[0])
    # The blocks of the encoder run from the last index to the first.
    order = reversed(range(count)) if name.startswith("bottom_up") else range(count)
    return {f"block {row}": jax.tree.map(lambda leaf, row=row: leaf[row], outputs) for row in order}
