"""The Inception network of the FID, with weights from a file that the user names.

Heusel et al., "GANs trained by a two time-scale update rule" (NeurIPS 2017), define the FID by 2048
features of one trained network, TensorFlow's graph of 2015-12-05. It is Inception v3 (Szegedy et
al., CVPR 2016), except that its average pools leave out the padding, that its last block pools by
the maximum, and that its classifier has 1008 classes. With other weights, or trained again, it
gives no FID. The published weights are `pt_inception-2015-12-05-6726825d.pth` of pytorch-fid, which
torch-fidelity publishes too: 6726825d are the first digits of the file's SHA-256.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, UInt8

from vaejax.errors import UserError
from vaejax.features.extractor import Extractor
from vaejax.features.resizing import RESIZES, SIDE, resize
from vaejax.features.weight_files import Arrays, mismatch, read_weights, sha256

PUBLISHED = "6726825d"
"""The first digits of the SHA-256 of the published weights."""

# Grey level that becomes 0 and the one above it that becomes 1, by protocol.
_SCALINGS = {"tf": (128.0, 128.0), "pytorch": (127.5, 127.5), "clean": (128.0, 128.0)}
# Added to the variances of the batch normalisation.
_EPSILON = 1e-3

Params = Mapping[str, Mapping[str, Array]]
Maps = Float[Array, "batch _ _ _"]


class Conv(NamedTuple):
    """A convolution without bias, then batch normalisation, then ReLU."""

    name: str
    features: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    padding: str = "SAME"


class Pool(NamedTuple):
    """Pooling of 3×3 windows by `max` or `average`; the average leaves out the padding."""

    kind: str
    stride: int = 1
    padding: str = "SAME"


# A chain of layers is a tuple. A list has chains that see the same input; their outputs are
# concatenated.
Layer = Conv | Pool | list
Chain = tuple[Layer, ...]

_HALVE = Pool("max", 2, "VALID")


def _block_a(conv: Callable[..., Conv], pooled: int) -> list[Chain]:
    return [
        (conv("1x1", 64),),
        (conv("5x5_1", 48), conv("5x5_2", 64, (5, 5))),
        (conv("3x3dbl_1", 64), conv("3x3dbl_2", 96, (3, 3)), conv("3x3dbl_3", 96, (3, 3))),
        (Pool("average"), conv("_pool", pooled)),
    ]


def _block_b(conv: Callable[..., Conv]) -> list[Chain]:
    double = conv("3x3dbl_1", 64), conv("3x3dbl_2", 96, (3, 3))
    return [
        (conv("3x3", 384, (3, 3), 2, "VALID"),),
        (*double, conv("3x3dbl_3", 96, (3, 3), 2, "VALID")),
        (_HALVE,),
    ]


def _block_c(conv: Callable[..., Conv], width: int) -> list[Chain]:
    double = (
        conv("7x7dbl_1", width),
        conv("7x7dbl_2", width, (7, 1)),
        conv("7x7dbl_3", width, (1, 7)),
        conv("7x7dbl_4", width, (7, 1)),
        conv("7x7dbl_5", 192, (1, 7)),
    )
    return [
        (conv("1x1", 192),),
        (conv("7x7_1", width), conv("7x7_2", width, (1, 7)), conv("7x7_3", 192, (7, 1))),
        double,
        (Pool("average"), conv("_pool", 192)),
    ]


def _block_d(conv: Callable[..., Conv]) -> list[Chain]:
    wide, tall = conv("7x7x3_2", 192, (1, 7)), conv("7x7x3_3", 192, (7, 1))
    return [
        (conv("3x3_1", 192), conv("3x3_2", 320, (3, 3), 2, "VALID")),
        (conv("7x7x3_1", 192), wide, tall, conv("7x7x3_4", 192, (3, 3), 2, "VALID")),
        (_HALVE,),
    ]


def _block_e(conv: Callable[..., Conv], pool: str) -> list[Chain]:
    def halves(name: str) -> list[Chain]:
        return [(conv(f"{name}a", 384, (1, 3)),), (conv(f"{name}b", 384, (3, 1)),)]

    return [
        (conv("1x1", 320),),
        (conv("3x3_1", 384), halves("3x3_2")),
        (conv("3x3dbl_1", 448), conv("3x3dbl_2", 384, (3, 3)), halves("3x3dbl_3")),
        (Pool(pool), conv("_pool", 192)),
    ]


def _named(block: str) -> Callable[..., Conv]:
    return lambda branch, *settings: Conv(f"{block}.branch{branch}", *settings)


_NETWORK: Chain = (
    Conv("Conv2d_1a_3x3", 32, (3, 3), 2, "VALID"),
    Conv("Conv2d_2a_3x3", 32, (3, 3), 1, "VALID"),
    Conv("Conv2d_2b_3x3", 64, (3, 3)),
    _HALVE,
    Conv("Conv2d_3b_1x1", 80),
    Conv("Conv2d_4a_3x3", 192, (3, 3), 1, "VALID"),
    _HALVE,
    _block_a(_named("Mixed_5b"), 32),
    _block_a(_named("Mixed_5c"), 64),
    _block_a(_named("Mixed_5d"), 64),
    _block_b(_named("Mixed_6a")),
    _block_c(_named("Mixed_6b"), 128),
    _block_c(_named("Mixed_6c"), 160),
    _block_c(_named("Mixed_6d"), 160),
    _block_c(_named("Mixed_6e"), 192),
    _block_d(_named("Mixed_7a")),
    _block_e(_named("Mixed_7b"), "average"),
    _block_e(_named("Mixed_7c"), "max"),
)


def load_inception(path: str | Path, protocol: str = "tf") -> Extractor:
    """Loads the extractor of the 2048 features that the FID compares.

    Pictures may have any size; a grey one is repeated to three channels. With any other file than
    the published one, the extractor's name says so, because a distance of its features is no FID.

    Args:
      path: file of weights with the 472 names of pytorch-fid's state dict.
      protocol: how pictures are resized and scaled: `tf` (the FID's own code, torch-fidelity),
        `pytorch` (pytorch-fid) or `clean` (clean-fid). Their FIDs cannot be compared.

    Raises:
      UserError: the protocol is unknown, or the file cannot be read or holds other arrays.
    """
    if protocol not in RESIZES:
        raise UserError(f"protocol {protocol!r} of the FID is unknown; name {', '.join(RESIZES)}")
    params = _read_params(path)
    digest = sha256(path)
    published = digest.startswith(PUBLISHED)
    middle, unit = _SCALINGS[protocol]
    network = "FID's Inception" if published else "Inception with other weights (no FID)"
    described = {
        "weights": "published" if published else "other",
        "sha256": digest,
        "resize": f"{RESIZES[protocol].description}, to {SIDE}x{SIDE}",
        "scaling": f"(x - {middle:g}) / {unit:g}",
        "layer": "pool3, 2048 features",
    }
    return Extractor(
        f"{network}, protocol {protocol}", described, params, partial(_pool3, protocol)
    )


def weight_shapes() -> dict[str, tuple[int, ...]]:
    """Returns the shapes of the 472 arrays that a file of weights must have, by their names."""
    shapes: dict[str, tuple[int, ...]] = {}
    for conv, channels in _convs(_NETWORK, 3)[0]:
        shapes[f"{conv.name}.conv.weight"] = (conv.features, channels, *conv.kernel)
        for name in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{conv.name}.bn.{name}"] = (conv.features,)
    return shapes | {"fc.weight": (1008, 2048), "fc.bias": (1008,)}


def _convs(chain: Chain, channels: int) -> tuple[list[tuple[Conv, int]], int]:
    """Returns all convolutions with the channels of their input, and the channels of the output."""
    found = []
    for layer in chain:
        match layer:
            case Conv():
                found.append((layer, channels))
                channels = layer.features
            case list():
                parts = [_convs(branch, channels) for branch in layer]
                found += [conv for convs, _ in parts for conv in convs]
                channels = sum(width for _, width in parts)
    return found, channels


def _read_params(path: str | Path) -> Params:
    arrays = read_weights(path)
    fault = mismatch(arrays, weight_shapes())
    if not fault:
        params = {conv.name: _folded(conv, arrays) for conv, _ in _convs(_NETWORK, 3)[0]}
        if all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(params)):
            return jax.tree.map(jnp.asarray, params)
        fault = "their values are not finite"
    raise UserError(
        f"weights {path} are not those of FID's Inception: {fault}; name the file "
        f"pt_inception-2015-12-05-{PUBLISHED}.pth of pytorch-fid"
    )


def _folded(conv: Conv, arrays: Arrays) -> dict[str, Float[np.ndarray, "..."]]:
    """Returns kernel `[height, width, in, out]` and bias that include the batch normalisation."""
    names = ("weight", "bias", "running_mean", "running_var")
    gain, shift, mean, variance = (
        arrays[f"{conv.name}.bn.{name}"].astype(np.float64) for name in names
    )
    with np.errstate(invalid="ignore"):
        gain = gain / np.sqrt(variance + _EPSILON)
    kernel = arrays[f"{conv.name}.conv.weight"].transpose(2, 3, 1, 0) * gain[None, None, None]
    return {"kernel": kernel.astype(np.float32), "bias": (shift - mean * gain).astype(np.float32)}


def _pool3(
    protocol: str, params: Params, pictures: UInt8[Array | np.ndarray, "batch height width channel"]
) -> Float[Array, "batch feature"]:
    """Computes the 2048 features of each picture, which has one or three channels."""
    middle, unit = _SCALINGS[protocol]
    x = (resize(pictures, protocol) - middle) / unit
    x = jnp.broadcast_to(x, (*x.shape[:3], 3))
    return _run(_NETWORK, params, x).mean(axis=(1, 2))


def _run(chain: Chain, params: Params, x: Maps) -> Maps:
    for layer in chain:
        match layer:
            case Conv():
                x = _convolve(layer, x, **params[layer.name])
            case Pool():
                x = _pool(layer, x)
            case list():
                x = jnp.concatenate([_run(branch, params, x) for branch in layer], axis=-1)
    return x


def _convolve(conv: Conv, x: Maps, kernel: Array, bias: Array) -> Maps:
    x = lax.conv_general_dilated(
        x,
        kernel,
        (conv.stride, conv.stride),
        conv.padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=lax.Precision.HIGHEST,
    )
    return jax.nn.relu(x + bias[None, None, None])


def _pool(pool: Pool, x: Maps) -> Maps:
    windows = (1, 3, 3, 1), (1, pool.stride, pool.stride, 1), pool.padding
    if pool.kind == "max":
        return lax.reduce_window(x, -jnp.inf, lax.max, *windows)
    counts = lax.reduce_window(jnp.ones((1, *x.shape[1:3], 1)), 0.0, lax.add, *windows)
    return lax.reduce_window(x, 0.0, lax.add, *windows) / counts
