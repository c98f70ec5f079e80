"""The terms of the ELBO for a batch, their sums over many, and what a person reads of them."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from vaejax import objectives
from vaejax.likelihoods import Images, Likelihood, Pixels, to_unit
from vaejax.objectives import Codes, LatentMoments, PerExample
from vaejax.priors import StandardNormal


class Evidence(NamedTuple):
    """The terms of the ELBO for each picture of a batch, with one sample of z.

    Attributes:
      log_likelihood: log p(x|z), nats.
      kl: KL(q(z|x) || p(z)), nats; one column for each factor of the prior. Under N(0, I)
        every dimension is a factor and the KL is in closed form. Any other prior is one
        factor, with the entropy of q in closed form and log p(z) at the sample.
      mean, log_std: of q(z|x).
      pixels: the distribution of the picture's values given z.
    """

    log_likelihood: PerExample
    kl: Float[Array, "batch factor"]
    mean: Codes
    log_std: Codes
    pixels: Pixels


def evidence(
    model: nn.Module,
    params: dict,
    likelihood: Likelihood,
    images: Images,
    noise: Codes,
    log_prior: Callable[[Codes], PerExample] | None = None,
) -> Evidence:
    """Encodes, samples z with the given standard normal `noise`, decodes and compares.

    Args:
      model: a `models.vae.VAE`.
      params: its parameters.
      likelihood: of the pictures given the decoded pixels.
      images: the pictures.
      noise: standard normal, one row for each picture.
      log_prior: log p(z) in place of the model's own prior.
    """
    variables = {"params": params}
    mean, log_std = model.apply(variables, images, method="encode")
    z = objectives.reparameterize(mean, log_std, noise)
    pixels = model.apply(variables, z, method="decode")
    if log_prior is None and isinstance(model.prior, StandardNormal):
        kl = objectives.standard_kl(mean, log_std)
    else:
        if log_prior is None:
            log_prior = partial(model.apply, variables, method="log_prior")
        kl = (-objectives.gaussian_entropy(log_std) - log_prior(z))[:, None]
    return Evidence(likelihood.log_prob(images, pixels), kl, mean, log_std, pixels)


class Sums(NamedTuple):
    """Sums over pictures of what every report is made of.

    Attributes:
      count: pictures.
      log_likelihood, kl: nats.
      squared_error: mean over a picture's values, on the scale 0..1.
      squared_z: the same in units of the likelihood's variance: 1 where it is calibrated.
    """

    count: Float[Array, ""]
    log_likelihood: Float[Array, ""]
    kl: Float[Array, ""]
    squared_error: Float[Array, ""]
    squared_z: Float[Array, ""]
    moments: LatentMoments


def sums_of(terms: Evidence, likelihood: Likelihood, images: Images, mask: PerExample) -> Sums:
    """The sums of one batch; pictures whose `mask` is 0 do not count."""
    squared = (0.5 * (to_unit(images) - to_unit(likelihood.mean(terms.pixels)))) ** 2
    variance = jnp.broadcast_to(0.25 * likelihood.variance(terms.pixels), squared.shape)

    def total(values: PerExample) -> Float[Array, ""]:
        return jnp.sum(jnp.where(mask > 0, values, jnp.zeros_like(values)))

    return Sums(
        count=jnp.sum(mask),
        log_likelihood=total(terms.log_likelihood),
        kl=total(jnp.sum(terms.kl, axis=-1)),
        squared_error=total(jnp.mean(squared, axis=(1, 2, 3))),
        squared_z=total(jnp.mean(squared / variance, axis=(1, 2, 3))),
        moments=objectives.latent_moments(terms.mean, terms.log_std, mask),
    )


def empty_sums(latent_size: int) -> Sums:
    """The sums of no pictures."""
    zero, zeros = jnp.zeros((), jnp.float32), jnp.zeros((latent_size,), jnp.float32)
    return Sums(*[zero] * 5, LatentMoments(zero, zeros, zeros, zeros, zeros))


def summarize(sums: Sums, dimensions: int, beta: float) -> dict[str, float]:
    """Means over pictures, in the units people compare.

    Args:
      sums: over at least one picture.
      dimensions: values in a picture.
      beta: weight of the KL term in the objective.

    Returns:
      elbo_nats and elbo_bits_per_dim, log_likelihood_nats and kl_nats per picture,
      psnr_pooled (of the mean squared error over all pictures), effective_beta (`beta`
      relative to a likelihood whose scale fits the errors), active_units, and
      information_nats, what the codes tell about the pictures, summed over dimensions.
    """
    sums = Sums(*(np.float64(value) for value in sums[:-1]), sums.moments)
    likelihood, kl = sums.log_likelihood / sums.count, sums.kl / sums.count
    elbo = likelihood - kl
    usage = objectives.latent_usage(sums.moments)
    values = {
        "elbo_nats": elbo,
        "elbo_bits_per_dim": objectives.bits_per_dim(elbo, dimensions),
        "log_likelihood_nats": likelihood,
        "kl_nats": kl,
        "psnr_pooled": -10.0 * np.log10(max(sums.squared_error / sums.count, 1e-12)),
        "effective_beta": beta / (sums.squared_z / sums.count),
        "active_units": usage.active,
        "information_nats": np.sum(usage.information),
    }
    return {name: float(value) for name, value in values.items()}
