"""A Gaussian prior with full covariance, fitted to the moments of codes."""

from collections.abc import Iterable

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

from vaejax.errors import UserError
from vaejax.priors.standard_normal import base_noise, standard_normal_log_prob

# Added to every variance, as a share of the mean variance over dimensions. Without it, a dimension
# in which all codes are equal would make the covariance singular.
_RIDGE = 1e-6
# The fewest codes with a covariance, which every fitted prior needs.
MIN_CODES = 2


@flax.struct.dataclass
class Gaussian:
    """N(mean, cholesky choleskyᵀ).

    Attributes:
      mean: the mean code.
      cholesky: lower triangular Cholesky factor of the covariance.
    """

    mean: Float[Array, "latent"]
    cholesky: Float[Array, "latent latent"]

    def log_prob(self, z: Float[Array, "batch latent"]) -> Float[Array, "batch"]:
        """Returns the log-density in nats."""
        return standard_normal_log_prob(self.to_noise(z)) - self.log_det()

    def noise(
        self, key: PRNGKeyArray, count: int, temperature: float | Float[Array, ""] = 1.0
    ) -> Float[Array, "count latent"]:
        """Draws the base noise of `count` samples, from N(0, temperature² I)."""
        return base_noise(key, count, len(self.mean), temperature)

    def sample(
        self, key: PRNGKeyArray, count: int, temperature: float | Float[Array, ""] = 1.0
    ) -> Float[Array, "count latent"]:
        """Draws `count` samples from N(mean, temperature² covariance)."""
        return self.from_noise(self.noise(key, count, temperature))

    def to_noise(self, z: Float[Array, "batch latent"]) -> Float[Array, "batch latent"]:
        """Whitens codes; the result is standard normal if `z` follows the prior."""
        centred = z.astype(jnp.float32) - self.mean[None]
        return lax.linalg.triangular_solve(
            self.cholesky, centred, left_side=False, lower=True, transpose_a=True
        )

    def from_noise(self, noise: Float[Array, "batch latent"]) -> Float[Array, "batch latent"]:
        """Maps standard normal noise to codes; the inverse of `to_noise`."""
        product = jnp.matmul(noise, self.cholesky.T, precision=lax.Precision.HIGHEST)
        return product + self.mean[None]

    def log_det(self) -> Float[Array, ""]:
        """Half the log-determinant of the covariance, `log |d z / d noise|`."""
        return jnp.sum(jnp.log(jnp.diagonal(self.cholesky)))


def fit_gaussian(batches: Iterable[Float[Array | np.ndarray, "_ latent"]]) -> Gaussian:
    """Fits the maximum-likelihood Gaussian to codes that come in batches of any size.

    Moments are merged batch by batch in float64 on the host (Chan, Golub and LeVeque 1983,
    eq. 2.1), so neither the number of codes nor their distance from zero costs precision.
    A millionth of the mean variance is added to every variance.

    Raises:
      UserError: there are fewer than two codes, or some are not finite.
    """
    count = 0
    # Scalars, because the number of dimensions is known only from the first batch.
    mean: np.ndarray = np.zeros(())
    scatter: np.ndarray = np.zeros(())
    for batch in batches:
        codes = np.asarray(batch, np.float64)
        if len(codes) == 0:
            continue
        if not np.all(np.isfinite(codes)):
            raise UserError(
                "a prior cannot be fitted to codes that are not finite: did training fail?"
            )
        batch_mean = codes.mean(axis=0)
        centred = codes - batch_mean[None]
        gap = batch_mean - mean
        total = count + len(codes)
        scatter = scatter + centred.T @ centred + np.outer(gap, gap) * count * len(codes) / total
        mean = mean + gap * len(codes) / total
        count = total
    if count < MIN_CODES:
        raise UserError(f"a prior needs at least {MIN_CODES} codes to be fitted to, got {count}")
    covariance = scatter / count
    # If all codes are equal, the mean variance is 0 and the ridge is absolute.
    ridge = _RIDGE * (np.trace(covariance) / len(covariance) or 1.0)
    cholesky = np.linalg.cholesky(covariance + ridge * np.eye(len(covariance)))
    return Gaussian(
        jax.device_put(mean.astype(np.float32)), jax.device_put(cholesky.astype(np.float32))
    )
