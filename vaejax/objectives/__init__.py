"""Terms of the ELBO and statistics of the latents, as functions of arrays."""

from vaejax.objectives.elbo import (
    ACTIVE_SHARE,
    LatentMoments,
    LatentUsage,
    balance,
    bits_per_dim,
    code_std,
    free_bits,
    gaussian_entropy,
    gaussian_log_prob,
    importance_bound,
    latent_moments,
    latent_usage,
    reparameterize,
    standard_kl,
)

__all__ = [
    "ACTIVE_SHARE",
    "LatentMoments",
    "LatentUsage",
    "balance",
    "bits_per_dim",
    "code_std",
    "free_bits",
    "gaussian_entropy",
    "gaussian_log_prob",
    "importance_bound",
    "latent_moments",
    "latent_usage",
    "reparameterize",
    "standard_kl",
]
