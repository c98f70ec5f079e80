"""A network that embeds the labels on which the velocity of a flow is conditioned."""

import flax.linen as nn
from jaxtyping import Array, Float

# One pair for each label: its scaled value and 1, or (0, 0) if it is not known.
Condition = Float[Array, "batch label 2"]


class LabelEmbedding(nn.Module):
    """Two dense layers over all pairs; their output is added where the embedding of time acts.

    If no label is known, all inputs are zero. The output then depends on the biases alone: it is
    the learned embedding of "no condition".

    Attributes:
      width: units of the hidden layer, and features of the embedding.
    """

    width: int

    @nn.compact
    def __call__(self, condition: Condition) -> Float[Array, "batch feature"]:
        """Returns the embedding of each condition, float32."""
        batch, labels, parts = condition.shape
        hidden = nn.Dense(self.width)(condition.reshape(batch, labels * parts))
        return nn.Dense(self.width)(nn.silu(hidden))
