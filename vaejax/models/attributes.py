"""A residual network that predicts the attributes of faces, such as glasses or a smile."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Num, PRNGKeyArray, PyTree

from vaejax.config import AttributesConfig, Config
from vaejax.models.blocks import (
    Conv1x1,
    Conv3x3,
    Maps,
    activation,
    kernel_init,
    merged,
)

Pictures = Num[Array | np.ndarray, "batch height width channel"]
# Channels are normalised in this many groups, fewer if these do not divide their number or would
# have a single channel: normalised alone, a channel loses the colours of the picture.
_GROUPS = 8


class AttributeNetwork(nn.Module):
    """Maps pictures to one logit for each attribute.

    The faces are aligned, so the last feature map is flattened and not averaged: where something
    is tells what it is.

    Attributes:
      attributes: number of attributes.
      size: size of the feature vector.
      widths: channels at each resolution, finest first.
      blocks: number of residual blocks at each resolution.
      patch: side in pixels of the square that the first convolution sees as one position.
      dtype: dtype of the activations; parameters are float32.
    """

    attributes: int
    size: int
    widths: tuple[int, ...]
    blocks: tuple[int, ...]
    patch: int
    dtype: jnp.dtype

    def setup(self) -> None:
        """Makes the two parts: the body, and the last layer."""
        self.body = _Body(self.size, self.widths, self.blocks, self.patch, self.dtype)
        # Zeros: training begins with the probability 0.5 for each attribute.
        self.head = nn.Dense(self.attributes, kernel_init=nn.initializers.zeros)

    def features(self, pictures: Pictures) -> Float[Array, "batch feature"]:
        """Returns the feature vector, float32, of pictures with values 0..255."""
        return self.body(pictures)

    def __call__(self, pictures: Pictures) -> Float[Array, "batch attribute"]:
        """Returns the logits, float32, of pictures with values 0..255."""
        return self.head(self.features(pictures))


def build_attribute_network(config: Config, dtype: str | None = None) -> AttributeNetwork:
    """Builds the Linen module that `config` describes, without parameters.

    Args:
      config: config of a run whose model is a network of attributes.
      dtype: dtype of the activations, such as `float32`; None means `config.model.dtype`, the
        dtype of training.

    Raises:
      ValueError: the config describes another model.
    """
    model = config.model
    if not isinstance(model, AttributesConfig):
        raise ValueError(f"config.model.name={model.name} is no network of attributes")
    activations = jnp.dtype(dtype or model.dtype)
    return AttributeNetwork(
        model.attributes, model.features, model.widths, model.blocks, model.patch, activations
    )


def init_attribute_network(network: AttributeNetwork, config: Config, key: PRNGKeyArray) -> dict:
    """Initialises the parameters of `network`, float32.

    Args:
      network: what `build_attribute_network` returns.
      config: config of the run; it gives the shape of the pictures.
      key: key of the random initial weights.
    """
    pictures = jax.ShapeDtypeStruct((1, *config.data.shape), jnp.uint8)
    return network.lazy_init(key, pictures)["params"]


def features_of(
    network: AttributeNetwork, params: PyTree, pictures: Pictures
) -> Float[Array, "batch feature"]:
    """Returns the feature vectors of pictures with values 0..255."""
    return _apply(network, params, pictures, "features")


def logits_of(
    network: AttributeNetwork, params: PyTree, pictures: Pictures
) -> Float[Array, "batch attribute"]:
    """Returns the logits of pictures with values 0..255: above 0, they have the attribute."""
    return _apply(network, params, pictures, "__call__")


def _apply(network: AttributeNetwork, params: PyTree, pictures: Pictures, method: str) -> Any:
    return network.apply({"params": params}, pictures, method=method)


class _Body(nn.Module):
    """Maps pictures to feature vectors; attributes as in `AttributeNetwork`."""

    size: int
    widths: tuple[int, ...]
    blocks: tuple[int, ...]
    patch: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, pictures: Pictures) -> Float[Array, "batch feature"]:
        x = jnp.asarray(pictures, jnp.float32) / 127.5 - 1.0
        for level, (width, count) in enumerate(zip(self.widths, self.blocks)):
            x = merged(x.astype(self.dtype), self.patch if level == 0 else 2)
            x = Conv1x1(width, self.dtype)(x)
            for _ in range(count):
                x = NormalizedBlock(self.dtype)(x)
        x = _normalized(x, self.dtype).reshape(x.shape[0], -1)
        x = nn.Dense(self.size, dtype=self.dtype, kernel_init=kernel_init())(x)
        return activation(x.astype(jnp.float32))


class NormalizedBlock(nn.Module):
    """x plus two 3 x 3 convolutions of it, with group normalisation and activation before each.

    The order is that of He et al. 2016, the normalisation that of Wu and He 2018, which unlike
    batch normalisation treats each picture alone. The second convolution starts at zero, so that
    at initialisation the block is the identity.

    Attributes:
      dtype: dtype of the activations.
    """

    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Maps) -> Maps:
        """Returns an array of the shape of `x`."""
        width = x.shape[-1]
        h = Conv3x3(width, self.dtype)(_normalized(x, self.dtype))
        return x + Conv3x3(width, self.dtype, nn.initializers.zeros)(_normalized(h, self.dtype))


def _normalized(x: Maps, dtype: jnp.dtype) -> Maps:
    """Normalises the groups of channels, and activates; called within a compact method."""
    groups = max(1, math.gcd(2 * _GROUPS, x.shape[-1]) // 2)
    return activation(nn.GroupNorm(groups, dtype=dtype)(x))
