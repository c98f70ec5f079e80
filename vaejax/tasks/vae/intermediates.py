"""The tensors that the loss of a VAE is computed from, to find the first that is not finite."""

import re
from collections.abc import Callable

import jax
from flax import linen as nn
from jaxtyping import Array, PyTree

from vaejax.likelihoods import Images, Likelihood
from vaejax.models.noise import Keys
from vaejax.tasks.vae.evidence import Evidence, evidence

# The modules of a ladder whose outputs have the block as their first axis.
_STACK = re.compile(r"(bottom_up|top_down)_\d+")


def intermediates(
    model: nn.Module, likelihood: Likelihood
) -> dict[str, Callable[[PyTree, Images, Keys], PyTree]]:
    """Returns functions (params, images, keys) -> tree of tensors, in the order of computation.

    They give the outputs of the modules in the order in which they run (in a ladder's stack of
    blocks, by block and then by name), and then the terms of the ELBO.

    Args:
      model: the VAE or ladder.
      likelihood: p(x|z).
    """

    def features(params: PyTree, images: Images, keys: Keys) -> PyTree:
        return model.apply({"params": params}, images, keys, method="features")

    def capture(params: PyTree, method: str, *inputs: PyTree, dropout: Keys) -> dict:
        _, extra = model.apply(
            {"params": params}, *inputs, method=method, dropout=dropout, capture_intermediates=True
        )
        return {name: _by_block(name, outputs) for name, outputs in extra["intermediates"].items()}

    def encoder(params: PyTree, images: Images, keys: Keys) -> dict:
        return capture(params, "features", images, dropout=keys)

    def decoder(params: PyTree, images: Images, keys: Keys) -> dict:
        return capture(params, "infer", features(params, images, keys), keys, dropout=keys)

    def terms(params: PyTree, images: Images, keys: Keys) -> Evidence:
        return evidence(model, params, likelihood, images, keys, dropout=keys)

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
