"""A residual network for the velocity of flow matching over vectors."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaejax.priors.label_embedding import Condition, LabelEmbedding
from vaejax.priors.time_features import time_features

# Features of the embedding of labels, whatever the width: each block multiplies them by a matrix.
_LABEL_FEATURES = 64


class VelocityMLP(nn.Module):
    """Residual blocks of two dense layers, whose activations are scaled and shifted by time.

    A condition on labels acts together with the time. The output is zero before training.

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
        self,
        x: Float[Array, "batch latent"],
        time: Float[Array, "batch"],
        condition: Condition | None = None,
    ) -> Float[Array, "batch latent"]:
        """Returns the output for inputs of unit variance at times in [0, 1], float32.

        Args:
          x: the inputs.
          time: the time of each.
          condition: what is known of the labels of each; None for a network without labels.
        """
        zero = nn.initializers.zeros_init()
        small = nn.initializers.variance_scaling(0.1, "fan_in", "normal")
        features = time_features(time)
        if condition is not None:
            embedding = LabelEmbedding(_LABEL_FEATURES, name="labels")(condition)
            # The next layer adds what it makes of the two.
            features = jnp.concatenate([features, embedding], axis=-1)
        hidden = nn.Dense(self.width, dtype=self.dtype)(x)
        for _ in range(self.blocks):
            # No layer norm: with it, codes of faces were learned more slowly and at a higher cost.
            modulation = nn.Dense(2 * self.width, dtype=self.dtype, kernel_init=zero)(features)
            scale, shift = jnp.split(modulation, 2, axis=-1)
            residual = nn.silu(hidden * (1.0 + scale) + shift)
            residual = nn.silu(nn.Dense(self.width, dtype=self.dtype)(residual))
            hidden = hidden + nn.Dense(self.width, dtype=self.dtype, kernel_init=small)(residual)
        out = nn.Dense(x.shape[-1], dtype=self.dtype, kernel_init=zero)(nn.silu(hidden))
        return out.astype(jnp.float32)
