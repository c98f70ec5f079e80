"""Procedural faces: a data set that needs no download, and knows its own ground truth.

    pictures, labels = faces(np.arange(64), 64, 64)

Picture i is a pure function of (seed, i), whatever batch it is drawn in. Every difference
between two faces is a named factor (`FACTORS`), and the labels are the factors' values.
"""

import functools
import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped, UInt8, UInt32

from vaejax.data.synthetic.factors import FACTORS, Factor, draw_factors
from vaejax.data.synthetic.portrait import paint
from vaejax.data.synthetic.sitter import palette
from vaejax.errors import UserError

__all__ = ["FACTORS", "Factor", "draw_factors", "faces", "render"]

_PIXELS_PER_BATCH = 2**18  # one picture's floats stay in the cache; the batch keeps cores busy
_LEAST_SIDE = 64


def faces(
    indices: Int[np.ndarray, " batch"], height: int, width: int, *, seed: int = 0
) -> tuple[UInt8[np.ndarray, "batch {height} {width} 3"], dict[str, Shaped[np.ndarray, " batch"]]]:
    """Draws the faces with these numbers.

    Args:
      indices: numbers of faces, from 0 on.
      height: height of the pictures, in pixels.
      width: width of the pictures; where it differs from the height, there is more background.
      seed: seed of the population.

    Returns:
      RGB pictures, and the factors that made them as `draw_factors` returns them.

    Raises:
      UserError: an index is negative, or a side is not at least 1.

    >>> faces(np.arange(2), 16, 12)[0].shape
    (2, 16, 12, 3)
    """
    factors = draw_factors(indices, seed)
    return render(factors, height, width), factors


def render(
    factors: Mapping[str, Shaped[np.ndarray | Array, " batch"]], height: int, width: int
) -> UInt8[np.ndarray, "batch {height} {width} 3"]:
    """Paints faces with given factors, always on the CPU.

    Args:
      factors: an array for every name in `FACTORS`, in its declared range.
      height: height of the pictures, in pixels.
      width: width of the pictures.

    Raises:
      UserError: a factor is missing, unknown or out of range, or a side is not at least 1.
    """
    if height < 1 or width < 1:
        raise UserError(f"height={height}, width={width}: a picture needs at least one pixel")
    columns = _checked(factors)
    count = len(next(iter(columns.values())))
    pictures = np.empty((count, height, width, 3), np.uint8)
    # One shape of batch for all, filled up with copies: one compilation, and the arithmetic of
    # a picture cannot depend on its company.
    side = _samples(height, width)
    batch = max(1, _PIXELS_PER_BATCH // (height * width * side**2))
    for start in range(0, count, batch):
        rows = np.minimum(np.arange(start, start + batch), count - 1)
        chunk = jax.device_put({name: column[rows] for name, column in columns.items()}, _cpu())
        # Every machine JAX runs on keeps the lowest byte of a word, the red one, first.
        words = np.asarray(jax.device_get(_paint_batch(chunk, height * side, width * side)))
        stop = min(start + batch, count)
        channels = words.view(np.uint8).reshape(*words.shape, 4)[: stop - start, ..., :3]
        pictures[start:stop] = _average(channels, side)
    return pictures


def _samples(height: int, width: int) -> int:
    """Samples a side of a pixel. Below 64 px too much of a face is thinner than a pixel."""
    return math.ceil(_LEAST_SIDE / min(height, width))


def _cpu() -> jax.Device:
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError as error:
        raise UserError(
            "synthetic faces are drawn on JAX's CPU device, which is switched off: add cpu to"
            " JAX_PLATFORMS, as in JAX_PLATFORMS=cuda,cpu"
        ) from error


def _checked(factors: Mapping[str, np.ndarray | Array]) -> dict[str, np.ndarray]:
    """The factors as NumPy arrays of the declared types, or a clear refusal."""
    names = [factor.name for factor in FACTORS]
    if wrong := sorted(set(factors) ^ set(names)):
        trouble = "unknown" if wrong[0] in factors else "missing"
        raise UserError(f"factor {wrong[0]!r} is {trouble}: give exactly those of FACTORS")
    columns = {}
    for factor in FACTORS:
        values = np.asarray(jax.device_get(factors[factor.name]))
        whole = factor.kind == "categorical"
        kind = np.integer if whole else np.floating
        if values.ndim != 1 or not np.issubdtype(values.dtype, kind):
            raise UserError(
                f"factor {factor.name!r} is {values.dtype}{list(values.shape)}: give one"
                f" {'whole number' if whole else 'float'} a picture"
            )
        # Written so that NaN is out of range; the slack is float32's rounding of the bounds.
        slack = 1e-6 * max(abs(factor.low), abs(factor.high))
        inside = (values >= factor.low - slack) & (values <= factor.high + slack)
        if not inside.all():
            raise UserError(
                f"factor {factor.name!r} has the value {values[~inside][0]}: it goes from"
                f" {factor.low:g} to {factor.high:g}"
            )
        columns[factor.name] = values.astype(np.int32 if whole else np.float32)
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        least = min(lengths, key=lengths.__getitem__)
        most = max(lengths, key=lengths.__getitem__)
        raise UserError(
            f"factor {least!r} has {lengths[least]} values but {most!r} has {lengths[most]}:"
            " give as many of each"
        )
    return columns


@functools.partial(jax.jit, static_argnums=(1, 2))
def _paint_batch(
    factors: dict[str, Shaped[Array, " batch"]], height: int, width: int
) -> UInt32[Array, "batch {height} {width}"]:
    """Pictures with a pixel's red, green and blue in the low three bytes of a word.

    One word a pixel makes the whole picture a single elementwise expression: XLA compiles it
    into one loop that touches memory once.
    """
    half = min(height, width) / 2
    shape = (height, width)
    x = (jax.lax.broadcasted_iota(jnp.float32, shape, 1) + (0.5 - width / 2)) / half
    y = (jax.lax.broadcasted_iota(jnp.float32, shape, 0) + (0.5 - height / 2)) / half

    # Without the barrier XLA works these out again for every pixel.
    colours = jax.lax.optimization_barrier(jax.vmap(palette)(factors))

    def words(f, c):
        red, green, blue = paint(f, c, x, y, 1 / half)
        return _byte(red) | (_byte(green) << 8) | (_byte(blue) << 16)

    return jax.vmap(words)(factors, colours)


def _byte(channel: Float[Array, "*picture"] | float) -> UInt32[Array, "*picture"]:
    return (jnp.clip(channel, 0.0, 1.0) * 255 + 0.5).astype(jnp.uint32)


def _average(
    samples: UInt8[np.ndarray, "batch rows columns channel"], side: int
) -> UInt8[np.ndarray, "batch height width channel"]:
    """Box-averages squares of `side` x `side` samples.

    In NumPy: inside the compiled loop XLA would draw every sample anew for each sum over it.
    """
    if side == 1:
        return samples
    batch, rows, columns, channels = samples.shape
    tiles = samples.reshape(batch, rows // side, side, columns // side, side, channels)
    area = side * side
    return ((tiles.sum((2, 4), dtype=np.uint32) + area // 2) // area).astype(np.uint8)
