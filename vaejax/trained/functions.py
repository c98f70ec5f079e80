"""What a trained VAE computes, as pure functions of its parameters: to jit, vmap, shard or export.

`model` is the Linen module of a run and `likelihood` its p(x|z), both static; a loaded run has them
as `TrainedModel.model` and `TrainedModel.likelihood`. Latents are one array [batch, latent], or for
each resolution of a ladder one of [batch, group, height, width, latent].
"""

from typing import Any

from flax import linen as nn
from jaxtyping import Array, Bool, Float, PyTree, UInt8

from vaejax.likelihoods import Images, Likelihood, to_picture
from vaejax.models.noise import Keys

Temperatures = float | Float[Array, "*group"]


def posterior(
    model: nn.Module,
    params: PyTree,
    images: UInt8[Array, "batch height width channel"],
    keys: Keys | None = None,
) -> tuple[PyTree, PyTree]:
    """Latents of q(z|x), and their standard deviations.

    Args:
      model: the module.
      params: its parameters.
      images: the pictures.
      keys: one for each picture, of samples; without them the latents are the means.
    """
    return _apply(model, params, "posterior", images, keys)


def decode(model: nn.Module, likelihood: Likelihood, params: PyTree, z: PyTree) -> Images:
    """The picture of each z: the mean of p(x|z), rounded."""
    return to_picture(likelihood, _apply(model, params, "decode", z))


def sample_latents(
    model: nn.Module, params: PyTree, keys: Keys, temperature: Temperatures
) -> PyTree:
    """Latents from the prior, one for each key; `temperature` scales the spread of its noise."""
    return _apply(model, params, "from_noise", _apply(model, params, "noise", keys, temperature))


def sample(
    model: nn.Module,
    likelihood: Likelihood,
    params: PyTree,
    keys: Keys,
    temperature: Temperatures,
) -> Images:
    """A new picture for each key; `temperature` scales the spread of the prior's noise."""
    noise = _apply(model, params, "noise", keys, temperature)
    return to_picture(likelihood, _apply(model, params, "generate", noise))


def redraw(
    model: nn.Module,
    likelihood: Likelihood,
    params: PyTree,
    z: PyTree,
    keep: Bool[Array, "group"],
    keys: Keys,
    temperature: Temperatures,
) -> tuple[Images, PyTree]:
    """Pictures and latents of a ladder, whose groups keep their z or are drawn anew.

    Args:
      model: a ladder.
      likelihood: its p(x|z).
      params: its parameters.
      z: latents.
      keep: whether each group keeps its own, from the top; the others come from their prior given
        all groups above.
      keys: one for each picture, of what is drawn.
      temperature: scales the spread of the priors' noise.
    """
    noise = _apply(model, params, "noise", keys, temperature)
    pixels, z, _ = _apply(model, params, "redraw", z, keep, noise)
    return to_picture(likelihood, pixels), z


def _apply(model: nn.Module, params: PyTree, method: str, *inputs: Any) -> Any:
    return model.apply({"params": params}, *inputs, method=method)
