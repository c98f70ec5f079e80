"""The evidence lower bound, its relatives, and what can be read off its terms.

Everything is in nats per picture until `bits_per_dim`. Posteriors are diagonal Gaussians
given by mean and log of the standard deviation. Latents are arrays of any rank, the picture first.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

LOG_2PI = math.log(2 * math.pi)
# Burda et al. (2016) call a latent active when its mean varies by more than this share.
ACTIVE_SHARE = 0.01

PerLatent = Float[Array, "batch *latent"]
PerExample = Float[Array, "batch"]


def sum_of_latents(values: PerLatent) -> PerExample:
    """Summed over all latents of a picture."""
    return jnp.sum(values, axis=tuple(range(1, values.ndim)))


def reparameterize(mean: PerLatent, log_std: PerLatent, noise: PerLatent) -> PerLatent:
    """z = mean + std * noise (Kingma & Welling 2014, section 2.4)."""
    return mean + jnp.exp(log_std) * noise


def gaussian_log_prob(z: PerLatent, mean: PerLatent, log_std: PerLatent) -> PerExample:
    """log of the diagonal Gaussian density at `z`."""
    standard = (z - mean) * jnp.exp(-log_std)
    return sum_of_latents(-0.5 * (standard**2 + LOG_2PI) - log_std)


def gaussian_entropy(log_std: PerLatent) -> PerExample:
    """Entropy of the diagonal Gaussian."""
    return sum_of_latents(log_std + 0.5 * (1.0 + LOG_2PI))


def standard_kl(mean: PerLatent, log_std: PerLatent) -> PerLatent:
    """KL(q(z|x) || N(0, I)) of each dimension (Kingma & Welling 2014, appendix B)."""
    return 0.5 * (mean**2 + jnp.exp(2.0 * log_std) - 1.0) - log_std


def free_bits(kl: Float[Array, "factor"], free: Float[Array, "factor"]) -> Float[Array, "factor"]:
    """The KL of each factor, counted as no less than `free` nats (Kingma et al. 2016, eq. 15).

    Args:
      kl: KL of each factor, its mean over a batch (or a part of it that is worked on at once): a
        factor that is unused everywhere is not pressed, while one picture may use less than
        another.
      free: free nats of each factor.
    """
    return jnp.maximum(kl, free)


def balance(
    kl: Float[Array, "factor"], sizes: Float[Array, "factor"], warmup: Float[Array, ""]
) -> Float[Array, "factor"]:
    """Weights of the factors' KL terms during the warm-up (Vahdat and Kautz 2020, appendix A).

    A factor that tells more for each of its dimensions weighs more, so that a small one is not
    given up before it has learned to tell anything. The weights have mean 1 and no gradient.

    Args:
      kl: KL of each factor, nats.
      sizes: dimensions of each.
      warmup: the share of the KL term's warm-up that is over; at 1 all weights are 1.
    """
    relative = jax.lax.stop_gradient(kl) / sizes + 1e-6
    return warmup + (1.0 - warmup) * relative / jnp.mean(relative)


def importance_bound(log_weights: Float[Array, "sample batch"]) -> PerExample:
    """log of the mean importance weight (Burda et al. 2016, eq. 8).

    Args:
      log_weights: log p(x|z) + log p(z) - log q(z|x) of K samples z ~ q(z|x).

    Returns:
      A lower bound of log p(x) that grows with K in expectation; K = 1 is the ELBO.
    """
    top = jnp.max(log_weights, axis=0, keepdims=True)
    return jnp.squeeze(top, 0) + jnp.log(jnp.mean(jnp.exp(log_weights - top), axis=0))


def bits_per_dim(nats: float, dimensions: int) -> float:
    """Negative log-likelihood in bits for each of a picture's values."""
    return -nats / (dimensions * math.log(2.0))


class LatentMoments(NamedTuple):
    """Sums over pictures from which `latent_usage` reads how each latent is used."""

    # A field by the name of a method of tuples, which nobody calls.
    count: Float[Array | np.ndarray, ""]  # type: ignore[assignment]
    mean: Float[Array | np.ndarray, "*latent"]
    mean_squared: Float[Array | np.ndarray, "*latent"]
    variance: Float[Array | np.ndarray, "*latent"]
    log_std: Float[Array | np.ndarray, "*latent"]


def latent_moments(mean: PerLatent, log_std: PerLatent, mask: PerExample) -> LatentMoments:
    """The sums of one batch; add those of several with `jax.tree.map`."""
    weight = mask.reshape(-1, *[1] * (mean.ndim - 1))
    return LatentMoments(
        jnp.sum(mask),
        jnp.sum(weight * mean, axis=0),
        jnp.sum(weight * mean**2, axis=0),
        jnp.sum(weight * jnp.exp(2.0 * log_std), axis=0),
        jnp.sum(weight * log_std, axis=0),
    )


class LatentUsage(NamedTuple):
    """How the latents are used.

    Attributes:
      information: nats per dimension, KL from q(z_d|x) to the Gaussian with the moments of
        all codes. It needs no prior, so it compares runs under different priors, and it
        bounds the mutual information of z_d and x from above.
      active: number of dimensions whose mean explains more than 1% of the codes' variance;
        under N(0, I) this is the count of Burda et al. (2016), and it does not depend on a
        learned prior's scale.
    """

    information: Float[np.ndarray, "..."]
    active: int


def latent_usage(moments: LatentMoments) -> LatentUsage:
    """Usage of each latent from the summed moments of many pictures, computed on the host."""
    # By NumPy: outside a jitted function, JAX compiles each operation on its own.
    exact = LatentMoments(*(np.asarray(moment, np.float64) for moment in moments))
    count = np.maximum(exact.count, 1.0)
    spread = np.maximum(exact.mean_squared / count - (exact.mean / count) ** 2, 0.0)
    total = spread + exact.variance / count
    information = 0.5 * np.log(total) - exact.log_std / count
    return LatentUsage(information, int(np.sum(spread > ACTIVE_SHARE * total)))
