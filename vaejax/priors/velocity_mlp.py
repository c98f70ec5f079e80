"""A residual network for the velocity of flow matching over vectors."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaejax.priors.time_features import time_features


class VelocityMLP(nn.Module):
    """Residual blocks of two dense layers, whose activations are scaled and shifted by time.

    The output is zero before training.

    Attributes:
      width: hidden units.
      blocks: number of residual blocks.
      dtype: dtype of the activations.
    """

    width: int
    blocks: int
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch latent"], time: Float[Array, "batch"]
    ) -> Float[Array, "batch latent"]:
        """Returns the output for inputs of unit variance at times in [0, 1], float32."""
        zero = nn.initializers.zeros_init()
        small = nn.initializers.variance_scaling(0.1, "fan_in", "normal")
        waves = time_features(time)
        hidden = nn.Dense(self.width, dtype=self.dtype)(x)
        for _ in range(self.blocks):
            # No layer norm: with it, codes of faces were learned more slowly and at a higher cost.
            modulation = nn.Dense(2 * self.width, dtype=self.dtype, kernel_init=zero)(waves)
            scale, shift = jnp.split(modulation, 2, axis=-1)
            residual = nn.silu(hidden * (1.0 + scale) + shift)
            residual = nn.silu(nn.Dense(self.width, dtype=self.dtype)(residual))
            hidden = hidden + nn.Dense(self.width, dtype=self.dtype, kernel_init=small)(residual)
        out = nn.Dense(x.shape[-1], dtype=self.dtype, kernel_init=zero)(nn.silu(hidden))
        return out.astype(jnp.float32)
