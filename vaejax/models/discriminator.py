"""A convolutional discriminator with logits for patches and for the whole picture."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from vaejax.models.blocks import Conv1x1, Conv3x3, Maps, kernel_init, merged


class Judgement(NamedTuple):
    """What a discriminator says of a batch of pictures.

    Attributes:
      patches: logits of overlapping patches; positive where they look real.
      whole: logit of each whole picture.
      features: the activations of each level, finest first.
    """

    patches: Float[Array, "batch rows columns"]
    whole: Float[Array, "batch"]
    features: tuple[Float[Array, "batch _rows _columns _channels"], ...]

    def logits(self) -> Float[Array, "batch"]:
        """Returns the mean of the patches' logits and the whole picture's, averaged."""
        return 0.5 * (jnp.mean(self.patches, axis=(1, 2)) + self.whole)


class Discriminator(nn.Module):
    """Tells real pictures from generated ones.

    Patches judge texture (Isola et al. 2017, section 3.2.2), the whole picture judges how its parts
    fit. There is no normalisation, so that each picture is judged alone.

    Attributes:
      widths: channels at each level, finest first; the first level merges 2 x 2 pixels, and each
        further one halves height and width.
      dtype: dtype of the activations; parameters and logits are float32.
    """

    widths: tuple[int, ...]
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, pictures: Maps) -> Judgement:
        """Judges pictures on the scale of `likelihoods.to_unit`."""
        x, features = pictures.astype(self.dtype), []
        for width in self.widths:
            x = _activation(Conv3x3(width, self.dtype, kernel_init(_GAIN))(merged(x, 2)))
            features.append(x)
        patches = Conv1x1(1, self.dtype)(features[max(0, len(features) - 2)])
        whole = nn.Dense(1, dtype=self.dtype, kernel_init=kernel_init())(x.reshape(x.shape[0], -1))
        return Judgement(
            patches[..., 0].astype(jnp.float32), whole[:, 0].astype(jnp.float32), tuple(features)
        )


# It keeps the variance of activations of `_activation` (He et al. 2015).
_GAIN = 2.0**0.5


def _activation(x: Maps) -> Maps:
    return jax.nn.leaky_relu(x, 0.2)
