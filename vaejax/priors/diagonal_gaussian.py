"""A Gaussian whose moments are those of the channels of a map, the same at all positions."""

import flax.struct
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vaejax.priors.gaussian import fit_gaussian

# Codes whose moments are computed at once, in float64.
_CHUNK = 4096


@flax.struct.dataclass
class DiagonalGaussian:
    """N(mean, diag(scale²)).

    Attributes:
      mean: the mean code.
      scale: the standard deviation of each dimension.
    """

    mean: Float[Array, "latent"]
    scale: Float[Array, "latent"]

    def to_noise(self, z: Float[Array, "batch latent"]) -> Float[Array, "batch latent"]:
        """Standardises codes; the result is standard normal if `z` follows this distribution."""
        return (z.astype(jnp.float32) - self.mean[None]) / self.scale[None]

    def from_noise(self, noise: Float[Array, "batch latent"]) -> Float[Array, "batch latent"]:
        """Maps standard normal noise to codes; the inverse of `to_noise`."""
        return noise * self.scale[None] + self.mean[None]

    def log_det(self) -> Float[Array, ""]:
        """Half the log-determinant of the covariance, `log |d z / d noise|`."""
        return jnp.sum(jnp.log(self.scale))


def fit_per_channel(codes: list[Float[np.ndarray, "_ latent"]], channels: int) -> DiagonalGaussian:
    """Fits one mean and one standard deviation to each channel of maps.

    Args:
      codes: arrays of maps, row by row as one vector each, with the channels innermost.
      channels: number of channels.

    Raises:
      UserError: there are fewer than two positions in all, or some codes are not finite.
    """
    chunks = (
        part[start : start + _CHUNK].reshape(-1, channels)
        for part in codes
        for start in range(0, len(part), _CHUNK)
    )
    of_channels = fit_gaussian(chunks)
    deviations = jnp.linalg.norm(of_channels.cholesky, axis=1)
    positions = codes[0].shape[1] // channels
    return DiagonalGaussian(jnp.tile(of_channels.mean, positions), jnp.tile(deviations, positions))
