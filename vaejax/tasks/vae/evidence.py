"""The terms of the ELBO for a batch, their sums over many, and what a person reads of them."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, PyTree

from vaejax import objectives
from vaejax.likelihoods import Images, Likelihood, to_unit
from vaejax.models import Inference
from vaejax.models.noise import Keys
from vaejax.objectives.elbo import LatentMoments, PerExample


class Evidence(NamedTuple):
    """The terms of the ELBO for each picture of a batch, with one sample of z.

    Attributes:
      log_likelihood: log p(x|z), nats.
      inference: what the model says of the pictures.
    """

    log_likelihood: PerExample
    inference: Inference

    def elbo(self) -> PerExample:
        """The evidence lower bound, nats."""
        return self.log_likelihood - jnp.sum(self.inference.kl, axis=-1)

    def log_weight(self) -> PerExample:
        """log p(x, z) - log q(z|x), nats, of which the importance-weighted bound is made."""
        return self.log_likelihood - self.inference.log_ratio


def evidence(
    model: nn.Module,
    params: dict,
    likelihood: Likelihood,
    images: Images,
    keys: Keys,
    *,
    dropout: Keys | None = None,
    **how: Any,
) -> Evidence:
    """Encodes, samples z, decodes and compares.

    Args:
      model: what `models.build_model` returns.
      params: its parameters.
      likelihood: likelihood of the pictures given the decoded pixels.
      images: the pictures.
      keys: keys of the noise of z, one for each picture.
      dropout: key of what is left out in training; None leaves nothing out.
      **how: what the model's `infer` takes beside these.
    """
    features = model.apply({"params": params}, images, dropout, method="features")
    how["dropout"] = dropout
    return evidence_from(model, params, likelihood, images, features, keys, **how)


def evidence_from(
    model: nn.Module,
    params: dict,
    likelihood: Likelihood,
    images: Images,
    features: PyTree,
    keys: Keys,
    **how: Any,
) -> Evidence:
    """The same from what the model's encoder makes of the pictures, its `features`."""
    # Linen declares that `apply` may return a pair, which it does only for `mutable` variables.
    inference: Any = model.apply({"params": params}, features, keys, method="infer", **how)
    return Evidence(likelihood.log_prob(images, inference.pixels), inference)


class Sums(NamedTuple):
    """Sums over pictures of what every report is made of.

    Attributes:
      count: pictures.
      log_likelihood: nats.
      kl: nats, of each factor of the prior.
      squared_error: mean over a picture's values, on the scale 0..1, from the bits that count.
      squared_z: the same in units of the likelihood's variance: 1 where it is calibrated.
      log_std: log standard deviation of the likelihood, mean over a picture's values, on the
        scale of `to_unit`.
      moments: moments of the codes; None where the model has none.
    """

    # A field by the name of a method of tuples, which nobody calls.
    count: Float[Array, ""]  # type: ignore[assignment]
    log_likelihood: Float[Array, ""]
    kl: Float[Array, "factor"]
    squared_error: Float[Array, ""]
    squared_z: Float[Array, ""]
    log_std: Float[Array, ""]
    moments: LatentMoments | None


def sums_of(terms: Evidence, likelihood: Likelihood, images: Images, mask: PerExample) -> Sums:
    """The sums of one batch; pictures whose `mask` is 0 do not count."""
    log_likelihood, (kl, _, pixels, codes) = terms
    mean, variance = likelihood.moments(pixels)
    squared = (to_unit(images, likelihood.bits) - jnp.clip(mean, -1.0, 1.0)) ** 2
    variance = jnp.broadcast_to(variance, squared.shape)

    def total(values: Float[Array, "batch *rest"]) -> Float[Array, "*rest"]:
        counts = mask.reshape(-1, *[1] * (values.ndim - 1)) > 0
        return jnp.sum(jnp.where(counts, values, jnp.zeros_like(values)), axis=0)

    def of_picture(values: Array) -> Float[Array, ""]:
        return total(jnp.mean(values, axis=(1, 2, 3)))

    return Sums(
        count=jnp.sum(mask),
        log_likelihood=total(log_likelihood),
        kl=total(kl),
        squared_error=of_picture(0.25 * squared),
        squared_z=of_picture(squared / variance),
        log_std=of_picture(0.5 * jnp.log(variance)),
        moments=codes and objectives.latent_moments(*codes, mask),
    )


def empty_sums(factors: int, code_size: int | None) -> Sums:
    """The sums of no pictures, for a prior of so many factors and codes of this size, if any."""
    zero = jnp.zeros((), jnp.float32)
    moments = None
    if code_size is not None:
        zeros = jnp.zeros((code_size,), jnp.float32)
        moments = LatentMoments(zero, zeros, zeros, zeros, zeros)
    return Sums(zero, zero, jnp.zeros((factors,), jnp.float32), zero, zero, zero, moments)


def summarize(sums: Sums, dimensions: int, beta: float) -> dict[str, float]:
    """Means over pictures, in the units people compare.

    Args:
      sums: over at least one picture.
      dimensions: values in a picture.
      beta: weight of the KL term in the objective.

    Returns:
      elbo_nats and elbo_bits_per_dim, log_likelihood_nats and kl_nats per picture,
      psnr_pooled (of the mean squared error over all pictures), effective_beta (`beta`
      relative to a likelihood whose scale fits the errors) and log_std (of the likelihood).
      Where there are codes, active_units and information_nats, what they tell about the
      pictures, summed over dimensions.
    """
    exact = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), sums)
    likelihood, kl = exact.log_likelihood / exact.count, np.sum(exact.kl) / exact.count
    elbo = likelihood - kl
    values = {
        "elbo_nats": elbo,
        "elbo_bits_per_dim": objectives.bits_per_dim(elbo, dimensions),
        "log_likelihood_nats": likelihood,
        "kl_nats": kl,
        "psnr_pooled": -10.0 * np.log10(max(exact.squared_error / exact.count, 1e-12)),
        "effective_beta": beta / (exact.squared_z / exact.count),
        "log_std": exact.log_std / exact.count,
    }
    if exact.moments is not None:
        usage = objectives.latent_usage(exact.moments)
        values |= {
            "active_units": usage.active,
            "information_nats": np.sum(usage.information),
        }
    return {name: float(value) for name, value in values.items()}


def per_factor(sums: Sums) -> dict[str, list[float]]:
    """What each part of z tells: of codes the information of each dimension, of groups the KL.

    In nats per picture.
    """
    if sums.moments is not None:
        usage = objectives.latent_usage(sums.moments)
        return {"information_per_dimension": usage.information.tolist()}
    return {"kl_per_group": (sums.kl / sums.count).tolist()}
