"""32-bit digests of arrays and of JSON, by which a changed bit is noticed."""

import json
import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree, Shaped, UInt, UInt32

Words = UInt32[Array | np.ndarray, "..."]
# Values that the host hashes at a time.
_PIECE = 2**16


def layout_digest(state: PyTree) -> int:
    """Computes a digest of the names, shapes and types in a tree of arrays or array shapes."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    names = [f"{jax.tree_util.keystr(path)} {leaf.shape} {leaf.dtype}" for path, leaf in leaves]
    return json_digest({"leaves": names})


def json_digest(value: dict[str, Any]) -> int:
    """Computes a digest (CRC-32) of a value that JSON can hold, whatever the order of its keys."""
    return zlib.crc32(json.dumps(value, sort_keys=True).encode())


def digest(state: PyTree) -> int:
    """Computes a digest of all bits of a tree of arrays, whatever devices they lie on.

    All processes that hold a part of an array must call it together.
    """
    total = 0
    # One leaf at a time: of several pending collectives, CPUs may start another than their peers.
    for leaf in map(jnp.asarray, jax.tree.leaves(state)):
        one = host_digest if _lies_on_host(leaf) else device_digest
        total = (total * 31 + int(one(leaf))) % 2**32
    return total


def _lies_on_host(leaf: Shaped[Array, "..."]) -> bool:
    """Whether NumPy can read all of an array in place: each of its parts, or a whole copy."""
    here = leaf.is_fully_addressable or leaf.is_fully_replicated
    return here and all(place.platform == "cpu" for place in leaf.devices())


def host_digest(leaf: Shaped[Array, "..."]) -> int:
    """Computes `device_digest` with NumPy, which need not compile a program for each shape."""
    bits, total = _host_uint32(leaf), 0
    # Pieces that stay in a processor's cache.
    for start in range(0, bits.size, _PIECE):
        piece = bits[start : start + _PIECE].astype(np.uint32)
        place = np.arange(start, start + piece.size, dtype=np.uint32)
        total += int(np.sum(_mixed(piece, place), dtype=np.uint32))
    return total % 2**32


# One program for each shape, not one for the tree: a state has few shapes and many leaves.
@jax.jit
def device_digest(leaf: Shaped[Array, "..."]) -> UInt32[Array, ""]:
    """Computes a digest of all bits of an array, on the devices that hold it."""
    bits = _as_uint32(leaf)
    place = jnp.zeros(bits.shape, jnp.uint32)
    for axis, size in enumerate(bits.shape):
        place = place * np.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis)
    return jnp.sum(_mixed(bits, place), dtype=jnp.uint32)


def _mixed(bits: Words, place: Words) -> Words:
    # Odd factors that differ from place to place (Knuth's multiplicative hash): a changed bit is
    # noticed, and so are two numbers that changed places. Sums wrap around.
    return (bits + np.uint32(1)) * (place * np.uint32(2654435761) | np.uint32(1))


def _host_uint32(leaf: Shaped[Array, "..."]) -> UInt[np.ndarray, "value"]:
    """Returns the bits of `_as_uint32` in one row, narrow numbers not yet widened."""
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    row = np.asarray(leaf).reshape(-1)
    if _is_narrow(leaf.dtype):
        return row.astype(np.int32).view(np.uint32)
    return row.view(f"u{min(row.itemsize, 4)}")


def _is_narrow(dtype: np.dtype) -> bool:
    """Whether the type is an integer of fewer than 8 bits."""
    return jnp.issubdtype(dtype, jnp.integer) and jnp.iinfo(dtype).bits < 8


def _as_uint32(leaf: Shaped[Array, "..."]) -> UInt32[Array, "..."]:
    """Returns the bits of any array: narrow numbers widened, wide ones split on a new last axis."""
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
        leaf = jnp.stack([leaf.real, leaf.imag], axis=-1)
    if leaf.dtype == jnp.bool_:
        return leaf.astype(jnp.uint32)
    width = leaf.dtype.itemsize
    if width >= 4:
        return jax.lax.bitcast_convert_type(leaf, jnp.uint32)
    if _is_narrow(leaf.dtype):
        return leaf.astype(jnp.int32).astype(jnp.uint32)
    return jax.lax.bitcast_convert_type(leaf, (jnp.uint8, jnp.uint16)[width - 1]).astype(jnp.uint32)
