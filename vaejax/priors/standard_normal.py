"""The standard normal prior, N(0, I)."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray


def standard_normal_log_prob(z: Float[Array, "batch *latent"]) -> Float[Array, "batch"]:
    """Computes log N(z; 0, I) in nats, in float32 whatever the dtype of `z`."""
    squares = jnp.sum(z.astype(jnp.float32) ** 2, axis=tuple(range(1, z.ndim)))
    return -0.5 * (squares + math.prod(z.shape[1:]) * math.log(2 * math.pi))


def base_noise(
    key: PRNGKeyArray, count: int, size: int, temperature: float | Float[Array, ""] = 1.0
) -> Float[Array, "count size"]:
    """Draws `count` vectors of `size` dimensions from N(0, temperature² I).

    A row is a function of the key and its number, whatever `count` is: JAX's Threefry computes
    each random number from its place.
    """
    return temperature * jax.random.normal(key, (count, size), jnp.float32)


class StandardNormal(nn.Module):
    """N(0, I) over latent vectors; it has no parameters.

    Attributes:
      latent_size: number of dimensions of z.
    """

    latent_size: int

    def __call__(self, z: Float[Array, "batch latent"]) -> Float[Array, "batch"]:
        """Calls `log_prob`, so that `init(key, z)` works as for every prior."""
        return self.log_prob(z)

    def log_prob(self, z: Float[Array, "batch latent"]) -> Float[Array, "batch"]:
        """Returns the log-density in nats."""
        return standard_normal_log_prob(z)

    def to_noise(self, z: Float[Array, "batch latent"]) -> Float[Array, "batch latent"]:
        """Returns the base noise of `z`, which is `z` itself, as float32."""
        return z.astype(jnp.float32)

    def from_noise(self, noise: Float[Array, "batch latent"]) -> Float[Array, "batch latent"]:
        """Returns the codes of base noise; the inverse of `to_noise`."""
        return noise.astype(jnp.float32)
