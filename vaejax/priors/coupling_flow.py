"""A normalising flow of affine coupling layers over latent vectors.

Dinh, Sohl-Dickstein and Bengio, "Density estimation using Real NVP" (ICLR 2017).
"""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vaejax.priors.permutations import fixed_permutations
from vaejax.priors.standard_normal import standard_normal_log_prob

# A coupling scales its input by a factor between e^-2 and e^2, so that no single layer can diverge
# early in training; eight couplings together leave more than enough range.
_LOG_SCALE_BOUND = 2.0


class Conditioner(nn.Module):
    """Computes the shift and the bounded log-scale of one half of a code from the other half.

    Attributes:
      size: dimensions of the half that is transformed.
      width: units of each of the two hidden layers.
    """

    size: int
    width: int

    @nn.compact
    def __call__(
        self, kept: Float[Array, "batch kept"]
    ) -> tuple[Float[Array, "batch size"], Float[Array, "batch size"]]:
        """Returns (shift, log_scale), both zero at initialisation."""
        hidden = nn.silu(nn.Dense(self.width)(kept))
        hidden = nn.silu(nn.Dense(self.width)(hidden))
        zero = nn.initializers.zeros_init()
        shift, raw = jnp.split(nn.Dense(2 * self.size, kernel_init=zero)(hidden), 2, axis=-1)
        return shift, _LOG_SCALE_BOUND * jnp.tanh(raw / _LOG_SCALE_BOUND)


class CouplingFlow(nn.Module):
    """p(z) as an invertible map between codes and standard normal noise.

    z is first shifted and scaled in each dimension, then passes `layers` couplings. A coupling
    splits the vector into two halves and transforms one by an affine map that depends on the other,

        moved <- (moved - shift(kept)) * exp(-log_scale(kept))        (Dinh et al., eq. 7, 8)

    and the halves change roles from one coupling to the next. Before every pair of couplings a
    fixed random permutation, the same for every model of this size, decides which dimensions are
    in which half. At initialisation the flow only permutes dimensions, so p(z) starts as N(0, I).

    Each training step maps codes to noise; the other direction costs the same. Everything is
    computed in float32, whatever the dtype of the encoder.

    Attributes:
      latent_size: number of dimensions of z. With a single one there is nothing to couple, and only
        the shift and the scale remain.
      layers: number of couplings.
      width: units of each of the two hidden layers in a coupling.
    """

    latent_size: int
    layers: int = 8
    width: int = 256

    def setup(self):
        """Declares the parameters, the couplings and their fixed permutations."""
        size = self.latent_size
        self.halves = (size // 2, size - size // 2)
        layers = self.layers if size > 1 else 0
        # `conditioners[i]` moves the second half when i is even, the first when it is odd.
        self.conditioners = [Conditioner(self.halves[1 - i % 2], self.width) for i in range(layers)]
        # NumPy arrays, so that they are constants of the compiled program.
        permutations = fixed_permutations(size, len(range(0, layers, 2)))
        self.permutations = [np.array(order) for order in permutations]
        self.shift = self.param("shift", nn.initializers.zeros_init(), (size,), jnp.float32)
        self.log_scale = self.param("log_scale", nn.initializers.zeros_init(), (size,), jnp.float32)

    def __call__(self, z: Float[Array, "batch latent"]) -> Float[Array, "batch"]:
        """Calls `log_prob`, so that `init(key, z)` creates every parameter."""
        return self.log_prob(z)

    def log_prob(self, z: Float[Array, "batch latent"]) -> Float[Array, "batch"]:
        """Returns the exact log-density in nats, by the change of variables."""
        noise, log_det = self._to_noise(z)
        return standard_normal_log_prob(noise) + log_det

    def to_noise(self, z: Float[Array, "batch latent"]) -> Float[Array, "batch latent"]:
        """Maps codes to base noise, which is standard normal if `z` follows the prior.

        Interpolate between the noise of two codes rather than between the codes themselves.
        """
        return self._to_noise(z)[0]

    def from_noise(self, noise: Float[Array, "batch latent"]) -> Float[Array, "batch latent"]:
        """Maps base noise to codes; the inverse of `to_noise`.

        The code of zero noise is in general neither the mode nor the mean of p(z).
        """
        z = noise.astype(jnp.float32)
        for i in reversed(range(len(self.conditioners))):
            kept, moved = self._split(z, i)
            shift, log_scale = self.conditioners[i](kept)
            z = self._join(kept, moved * jnp.exp(log_scale) + shift, i)
            if i % 2 == 0:
                z = z[:, np.argsort(self.permutations[i // 2])]
        return z * jnp.exp(self.log_scale)[None] + self.shift[None]

    def _to_noise(
        self, z: Float[Array, "batch latent"]
    ) -> tuple[Float[Array, "batch latent"], Float[Array, "batch"]]:
        """The base noise, and `log |det(d noise / d z)|`."""
        z = (z.astype(jnp.float32) - self.shift[None]) * jnp.exp(-self.log_scale)[None]
        log_det = jnp.broadcast_to(-jnp.sum(self.log_scale), z.shape[:1])
        for i, conditioner in enumerate(self.conditioners):
            if i % 2 == 0:
                z = z[:, self.permutations[i // 2]]
            kept, moved = self._split(z, i)
            shift, log_scale = conditioner(kept)
            z = self._join(kept, (moved - shift) * jnp.exp(-log_scale), i)
            log_det = log_det - jnp.sum(log_scale, axis=-1)
        return z, log_det

    def _split(self, z, i):
        """(kept, moved) of coupling `i`."""
        first, second = z[:, : self.halves[0]], z[:, self.halves[0] :]
        return (first, second) if i % 2 == 0 else (second, first)

    def _join(self, kept, moved, i):
        """The inverse of `_split`."""
        return jnp.concatenate((kept, moved) if i % 2 == 0 else (moved, kept), axis=-1)
