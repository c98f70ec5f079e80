"""The feature space and the predictions of a trained network of attributes.

A network that predicts what people see in faces (glasses, hair, a smile) describes faces, where
networks of ImageNet describe scenes. Its features suit pictures like those it was trained on.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, PyTree, UInt8

from vaejax.features.extractor import Extractor

Pictures = UInt8[Array | np.ndarray, "batch height width channel"]
# The weights of red, green and blue in Pillow's grey (ITU-R BT.601).
_GREY = np.array([0.299, 0.587, 0.114], np.float32)


class TrainedAttributeNetwork(NamedTuple):
    """A trained network of attributes.

    Attributes:
      name: the name that readers see.
      protocol: everything that two numbers must share to be comparable: the parameters' digest, the
        data of the training, the input.
      attributes: names of the attributes, in the order of the logits.
      shape: height, width and channels of the pictures that it takes.
      params: its parameters.
      features: maps (params, pictures of that shape, float32 0..255) to the feature vectors
        [batch, feature] before its last layer.
      logits: maps the same to [batch, attribute]; above 0, a picture has the attribute.
    """

    name: str
    protocol: Mapping[str, str | int | float]
    attributes: tuple[str, ...]
    shape: tuple[int, int, int]
    params: PyTree
    features: Callable
    logits: Callable

    def feature_space(self) -> Extractor:
        """Returns the extractor of the feature vectors."""
        return self._extractor("features", self.features)

    def predictor(self) -> Extractor:
        """Returns the extractor of the logits."""
        return self._extractor("logits", self.logits)

    def _extractor(self, layer: str, network: Callable) -> Extractor:
        shape = self.shape

        def apply(params: PyTree, pictures: Pictures) -> Float32[Array, "batch number"]:
            return network(params, fitted(pictures, shape))

        name = self.name if layer == "features" else f"{self.name}, {layer}"
        return Extractor(name, {**self.protocol, "layer": layer}, self.params, apply)


def fitted(
    pictures: Pictures, shape: tuple[int, int, int]
) -> Float[Array, "batch rows columns values"]:
    """Resizes pictures (linear, antialiased), and converts them between grey and colour.

    Args:
      pictures: of any size, with one or three channels.
      shape: height, width and channels wanted.

    Returns:
      Values 0..255, not rounded.
    """
    height, width, channels = shape
    values = jnp.asarray(pictures, jnp.float32)
    if channels == 1 and values.shape[3] == 3:
        values = jnp.sum(values * _GREY.reshape(1, 1, 1, 3), axis=3, keepdims=True)
    if values.shape[1:3] != (height, width):
        values = jax.image.resize(
            values, (len(values), height, width, values.shape[3]), "linear", antialias=True
        )
    return jnp.broadcast_to(values, (len(values), height, width, channels))
