"""The terms of the evidence lower bound, related bounds, and statistics of the latents.

All results are in nats per picture, except those of `bits_per_dim`. Posteriors are diagonal
Gaussians, given by the mean and the log of the standard deviation. Latents are arrays of any rank
whose first axis is the batch.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

LOG_2PI = math.log(2 * math.pi)
# A latent is active if the variance of its posterior mean is more than this share of the variance
# of its codes. Burda et al. (2016) use the same number as an absolute variance, under N(0, I).
ACTIVE_SHARE = 0.01

PerLatent = Float[Array, "batch *latent"]
PerExample = Float[Array, "batch"]


def sum_of_latents(values: PerLatent) -> PerExample:
    """Sums over all latents of each picture."""
    return jnp.sum(values, axis=tuple(range(1, values.ndim)))


def reparameterize(mean: PerLatent, log_std: PerLatent, noise: PerLatent) -> PerLatent:
    """Computes z = mean + std * noise (Kingma & Welling 2014, section 2.4)."""
    return mean + jnp.exp(log_std) * noise


def gaussian_log_prob(z: PerLatent, mean: PerLatent, log_std: PerLatent) -> PerExample:
    """Computes the log-density of a diagonal Gaussian at `z`, in nats."""
    standard = (z - mean) * jnp.exp(-log_std)
    return sum_of_latents(-0.5 * (standard**2 + LOG_2PI) - log_std)


def gaussian_entropy(log_std: PerLatent) -> PerExample:
    """Computes the differential entropy of a diagonal Gaussian, in nats."""
    return sum_of_latents(log_std + 0.5 * (1.0 + LOG_2PI))


def standard_kl(mean: PerLatent, log_std: PerLatent) -> PerLatent:
    """Computes KL(q(z|x) || N(0, I)) of each dimension, in nats (Kingma & Welling 2014, app. B)."""
    return 0.5 * (mean**2 + jnp.exp(2.0 * log_std) - 1.0) - log_std


def code_std(mean: PerLatent, log_std: PerLatent) -> Float[Array, "channel"]:
    """Computes the standard deviation of the codes z ~ q(z|x) of a batch, for each channel.

    The last axis is the channel; the mean and the variance are over all pictures and positions. The
    result has no gradient.
    """
    mean, log_std = jax.lax.stop_gradient((mean, log_std))
    axes = tuple(range(mean.ndim - 1))
    return jnp.sqrt(jnp.var(mean, axis=axes) + jnp.mean(jnp.exp(2.0 * log_std), axis=axes))


def free_bits(kl: Float[Array, "factor"], free: Float[Array, "factor"]) -> Float[Array, "factor"]:
    """Returns the KL of each factor, raised to at least `free` nats (Kingma et al. 2016, eq. 15).

    Args:
      kl: KL of each factor in nats, averaged over a batch (or the part of it that is processed at
        once): a factor that no picture uses is not penalised, while one picture may use less of it
        than another.
      free: free nats of each factor.
    """
    return jnp.maximum(kl, free)


def balance(
    kl: Float[Array, "factor"], sizes: Float[Array, "factor"], warmup: Float[Array, ""]
) -> Float[Array, "factor"]:
    """Computes weights of the factors' KL terms in the warm-up (Vahdat and Kautz 2020, app. A).

    The weight of a factor grows with its KL per dimension, so that a factor with a small KL is
    penalised less and is not given up before it has learned to carry information. The weights have
    mean 1 and no gradient.

    Args:
      kl: KL of each factor, in nats.
      sizes: number of dimensions of each factor.
      warmup: share of the KL term's warm-up that is over, in [0, 1]; at 1 all weights are 1.
    """
    relative = jax.lax.stop_gradient(kl) / sizes + 1e-6
    return warmup + (1.0 - warmup) * relative / jnp.mean(relative)


def importance_bound(log_weights: Float[Array, "sample batch"]) -> PerExample:
    """Computes the log of the mean importance weight (Burda et al. 2016, eq. 8).

    Args:
      log_weights: log p(x|z) + log p(z) - log q(z|x), in nats, of K samples z ~ q(z|x).

    Returns:
      A lower bound of log p(x), in nats, that grows with K in expectation; K = 1 is the ELBO.
    """
    top = jnp.max(log_weights, axis=0, keepdims=True)
    return jnp.squeeze(top, 0) + jnp.log(jnp.mean(jnp.exp(log_weights - top), axis=0))


def bits_per_dim(nats: float, dimensions: int) -> float:
    """Converts a log-likelihood in nats to the negative log-likelihood in bits per dimension.

    Args:
      nats: log-likelihood of a picture, or a bound of it.
      dimensions: number of values of a picture, height x width x channels.
    """
    return -nats / (dimensions * math.log(2.0))


class LatentMoments(NamedTuple):
    """Sums over pictures, from which `latent_usage` computes how each latent is used.

    They are the number of pictures, and the sums of the posteriors' means, squared means, variances
    and logs of the standard deviations.
    """

    # The field hides a method of tuples, which nobody calls.
    count: Float[Array | np.ndarray, ""]  # type: ignore[assignment]
    mean: Float[Array | np.ndarray, "*latent"]
    mean_squared: Float[Array | np.ndarray, "*latent"]
    variance: Float[Array | np.ndarray, "*latent"]
    log_std: Float[Array | np.ndarray, "*latent"]


def latent_moments(mean: PerLatent, log_std: PerLatent, mask: PerExample) -> LatentMoments:
    """Computes the sums of one batch; those of several batches can be added up.

    Args:
      mean: means of the posteriors.
      log_std: logs of their standard deviations.
      mask: 1 for pictures that count, 0 for padding.
    """
    weight = mask.reshape(-1, *[1] * (mean.ndim - 1))
    return LatentMoments(
        jnp.sum(mask),
        jnp.sum(weight * mean, axis=0),
        jnp.sum(weight * mean**2, axis=0),
        jnp.sum(weight * jnp.exp(2.0 * log_std), axis=0),
        jnp.sum(weight * log_std, axis=0),
    )


class LatentUsage(NamedTuple):
    """Statistics of how the latents are used.

    Attributes:
      information: for each dimension the mean KL, in nats, from q(z_d|x) to the Gaussian with the
        moments of all codes. It needs no prior, so that runs with different priors can be compared,
        and it bounds the mutual information of z_d and x from above.
      active: number of dimensions whose mean explains more than 1% of the codes' variance;
        under N(0, I) this is the count of Burda et al. (2016), and it does not depend on a
        learned prior's scale.
    """

    information: Float[np.ndarray, "..."]
    active: int


def latent_usage(moments: LatentMoments) -> LatentUsage:
    """Computes the usage of each latent from the summed moments of many pictures, on the host."""
    # With NumPy, because outside a jitted function JAX compiles each operation on its own.
    exact = LatentMoments(*(np.asarray(moment, np.float64) for moment in moments))
    count = np.maximum(exact.count, 1.0)
    spread = np.maximum(exact.mean_squared / count - (exact.mean / count) ** 2, 0.0)
    total = spread + exact.variance / count
    information = 0.5 * np.log(total) - exact.log_std / count
    return LatentUsage(information, int(np.sum(spread > ACTIVE_SHARE * total)))
