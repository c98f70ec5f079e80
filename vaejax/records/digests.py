"""Digests of arrays and of JSON: short numbers that change when any bit does."""

import json
import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree, Shaped, UInt32


def layout_digest(state: PyTree) -> int:
    """One number for the names, shapes and types of the arrays in a tree, or of their shapes."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    names = [f"{jax.tree_util.keystr(path)} {leaf.shape} {leaf.dtype}" for path, leaf in leaves]
    return json_digest({"leaves": names})


def json_digest(value: dict[str, Any]) -> int:
    """One number for a value that JSON can hold, whatever the order of its keys."""
    return zlib.crc32(json.dumps(value, sort_keys=True).encode())


def digest(state: PyTree) -> int:
    """One number for all bits of a tree of arrays, whatever devices they lie on.

    All processes that hold a part of an array ask for it together.
    """
    total = 0
    # One program for each shape, not one for all: a state has few shapes and many leaves. Leaf
    # after leaf: of exchanges that wait together, CPUs may begin another than their peers do.
    for leaf in jax.tree.leaves(state):
        total = (total * 31 + int(_leaf_digest(leaf))) % 2**32
    return total


@jax.jit
def _leaf_digest(leaf: Shaped[Array, "..."]) -> UInt32[Array, ""]:
    bits = _as_uint32(leaf)
    place = jnp.zeros(bits.shape, jnp.uint32)
    for axis, size in enumerate(bits.shape):
        place = place * np.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis)
    # Odd factors that differ from place to place (Knuth's multiplicative hash): neither a
    # changed bit nor two numbers that changed places go unnoticed. Sums wrap around.
    mixed = (bits + np.uint32(1)) * (place * np.uint32(2654435761) | np.uint32(1))
    return jnp.sum(mixed, dtype=jnp.uint32)


def _as_uint32(leaf: Shaped[Array, "..."]) -> UInt32[Array, "..."]:
    """The bits of any array: narrower numbers widened, wider ones as a last axis of halves."""
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
        leaf = jnp.stack([leaf.real, leaf.imag], axis=-1)
    if leaf.dtype == jnp.bool_:
        return leaf.astype(jnp.uint32)
    width = leaf.dtype.itemsize
    if width >= 4:
        return jax.lax.bitcast_convert_type(leaf, jnp.uint32)
    if jnp.issubdtype(leaf.dtype, jnp.integer) and jnp.iinfo(leaf.dtype).bits < 8:
        return leaf.astype(jnp.int32).astype(jnp.uint32)
    return jax.lax.bitcast_convert_type(leaf, (jnp.uint8, jnp.uint16)[width - 1]).astype(jnp.uint32)
