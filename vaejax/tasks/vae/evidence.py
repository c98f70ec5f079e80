"""The terms of the ELBO for a batch, their sums over many pictures, and metrics from these sums."""

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
      inference: the model's output: KL, log-ratio, parameters of p(x|z) and codes.
    """

    log_likelihood: PerExample
    inference: Inference

    def elbo(self) -> PerExample:
        """The evidence lower bound, nats."""
        return self.log_likelihood - jnp.sum(self.inference.kl, axis=-1)

    def log_weight(self) -> PerExample:
        """log p(x, z) - log q(z|x), nats, the log-weight of the importance-weighted bound."""
        return self.log_likelihood - self.inference.log_ratio


def evidence(
    model: nn.Module,
    params: dict,
    likelihood: Likelihood,
    images: Images,
    keys: Keys,
    *,
    dropout: Keys | None = None,
    seen: Images | None = None,
    **how: Any,
) -> Evidence:
    """Encodes pictures, samples z, decodes it, and computes the terms of the ELBO.

    Args:
      model: what `models.build_model` returns.
      params: parameters of the model.
      likelihood: p(x|z).
      images: the pictures.
      keys: one key for each picture, for the noise of z.
      dropout: one key for each picture, for dropout in training; None drops nothing.
      seen: the pictures that are encoded instead of `images`, such as masked ones. Whatever q(z|.)
        they give, the terms bound log p(x) of `images`.
      **how: further keyword arguments of the model's `infer`.
    """
    seen = images if seen is None else seen
    features = model.apply({"params": params}, seen, dropout, method="features")
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
    """Computes the same as `evidence` from `features`, which the model's `features` returned."""
    # Linen declares that `apply` may return a pair, which it does only for `mutable` variables.
    inference: Any = model.apply({"params": params}, features, keys, method="infer", **how)
    return Evidence(likelihood.log_prob(images, inference.pixels), inference)


class Sums(NamedTuple):
    """Sums over pictures, from which the metrics are computed.

    Attributes:
      count: the number of pictures.
      log_likelihood: log p(x|z), nats.
      kl: KL of each factor of the prior, nats.
      squared_error: squared error of the mean of p(x|z) in one sample of z, averaged over a
        picture's values, on the scale 0..1; of the `likelihood.bits` highest bits of the values.
      squared_z: the squared error divided by the variance of p(x|z), averaged over a picture's
        values; on average 1 if the likelihood is calibrated.
      log_std: log standard deviation of p(x|z) on the scale of `to_unit`, averaged over a picture's
        values.
      moments: moments of q(z|x), from `objectives.latent_moments`; None for a ladder.
    """

    # It hides the method `tuple.count`, which nobody calls.
    count: Float[Array, ""]  # type: ignore[assignment]
    log_likelihood: Float[Array, ""]
    kl: Float[Array, "factor"]
    squared_error: Float[Array, ""]
    squared_z: Float[Array, ""]
    log_std: Float[Array, ""]
    moments: LatentMoments | None


def sums_of(terms: Evidence, likelihood: Likelihood, images: Images, mask: PerExample) -> Sums:
    """Computes the sums of one batch.

    Args:
      terms: the terms of the ELBO.
      likelihood: p(x|z).
      images: the pictures.
      mask: 1 for pictures that count, 0 for padding.
    """
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


def empty_sums(factors: int, code_shape: tuple[int, ...] | None) -> Sums:
    """Returns the sums of no pictures, which are zero.

    Args:
      factors: number of factors of the prior, the length of `model.factors()`.
      code_shape: shape of z, a vector or a map; None for a ladder.
    """
    zero = jnp.zeros((), jnp.float32)
    moments = None
    if code_shape is not None:
        zeros = jnp.zeros(code_shape, jnp.float32)
        moments = LatentMoments(zero, zeros, zeros, zeros, zeros)
    return Sums(zero, zero, jnp.zeros((factors,), jnp.float32), zero, zero, zero, moments)


def summarize(sums: Sums, dimensions: int, beta: float) -> dict[str, float]:
    """Computes means over pictures, in the units in which models are compared.

    Args:
      sums: sums over at least one picture.
      dimensions: number of values of a picture, height * width * channels.
      beta: weight of the KL term in the objective.

    Returns:
      elbo_nats and elbo_bits_per_dim, log_likelihood_nats and kl_nats per picture,
      psnr_pooled (dB, from the squared error averaged over all pictures), effective_beta (the beta
      that would weight the KL term as much if the likelihood's scale fitted the errors) and log_std
      (of the likelihood, on the scale of `to_unit`). Except for a ladder also active_units and
      information_nats (summed over dimensions), see `objectives.LatentUsage`.
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
    """Computes the information of each part of z, in nats per picture.

    Returns:
      `information_per_dimension` of a vector, or `information_per_channel` of a map, summed over
      its positions, see `objectives.LatentUsage`; for a ladder, `kl_per_group`, the KL of each
      group, from the top.
    """
    if sums.moments is not None:
        information = objectives.latent_usage(sums.moments).information
        if information.ndim == 1:
            return {"information_per_dimension": information.tolist()}
        of_channels = information.reshape(-1, information.shape[-1]).sum(axis=0)
        return {"information_per_channel": of_channels.tolist()}
    return {"kl_per_group": (sums.kl / sums.count).tolist()}
