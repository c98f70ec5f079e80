"""A trained VAE as pure functions of its parameters, which can be jitted, vmapped or exported.

`model` is the Linen module of a run and `likelihood` its p(x|z); both are static, that is, not JAX
arrays. `TrainedModel.model` and `TrainedModel.likelihood` hold those of a loaded run, and
`TrainedModel.params` its parameters. Latents are one array [batch, latent], a map row
by row (`config.latent_shape`); or for a ladder one array [batch, group, row, column, channel] for
each resolution, coarsest first.
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
    """Returns latents from q(z|x), and the standard deviations of q(z|x).

    Args:
      model: the module.
      params: parameters of the module.
      images: the pictures.
      keys: one key for each picture, to sample its latents; None returns the means.
    """
    return _apply(model, params, "posterior", images, keys)


def decode(model: nn.Module, likelihood: Likelihood, params: PyTree, z: PyTree) -> Images:
    """Decodes latents to pictures: the mean of p(x|z), rounded to uint8.

    Args:
      model: the module.
      likelihood: p(x|z).
      params: parameters of the module.
      z: latents.
    """
    return to_picture(likelihood, _apply(model, params, "decode", z))


def sample_latents(
    model: nn.Module, params: PyTree, keys: Keys, temperature: Temperatures
) -> PyTree:
    """Samples latents from the prior, for one picture for each key.

    Args:
      model: the module.
      params: parameters of the module.
      keys: one key for each picture.
      temperature: standard deviation of the prior's noise; for a ladder also one for each group,
        from the top.
    """
    return _apply(model, params, "from_noise", _apply(model, params, "noise", keys, temperature))


def sample(
    model: nn.Module,
    likelihood: Likelihood,
    params: PyTree,
    keys: Keys,
    temperature: Temperatures,
) -> Images:
    """Samples a new picture for each key: the mean of p(x|z), rounded to uint8.

    Args:
      model: the module.
      likelihood: p(x|z).
      params: parameters of the module.
      keys: one key for each picture.
      temperature: as in `sample_latents`.
    """
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
    """Keeps the latents of some groups of a ladder, samples the others, and decodes.

    Args:
      model: a ladder.
      likelihood: p(x|z).
      params: parameters of the ladder.
      z: latents.
      keep: whether to keep each group's latents, from the top; the other groups are sampled from
        their prior given all groups above.
      keys: one key for each picture, for the prior's noise.
      temperature: as in `sample_latents`.

    Returns:
      The pictures, and the latents of all groups.
    """
    noise = _apply(model, params, "noise", keys, temperature)
    pixels, z, _ = _apply(model, params, "redraw", z, keep, noise)
    return to_picture(likelihood, pixels), z


def _apply(model: nn.Module, params: PyTree, method: str, *inputs: Any) -> Any:
    return model.apply({"params": params}, *inputs, method=method)
