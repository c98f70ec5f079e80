"""A transformer for the velocity of flow matching over maps.

Peebles and Xie, "Scalable diffusion models with transformers" (ICCV 2023), whose blocks are
conditioned by adaLN-Zero, with changes of Yao, Yang and Wang, "Reconstruction vs. generation"
(LightningDiT, CVPR 2025): RMS norms, normalised queries and keys, rotary positions, SwiGLU.
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from vaejax.priors.label_embedding import Condition, LabelEmbedding
from vaejax.priors.time_features import time_features

# Base of the wavelengths of rotary positions along an axis, which has tens of positions at most
# (Heo et al., "Rotary position embedding for vision transformer", ECCV 2024).
_ROTARY_BASE = 100.0
# Name of the arrays that `remat` keeps.
_DENSE = "dense"

Tokens = Float[Array, "batch token width"]
OtherTokens = Float[Array, "batch token _"]
Heads = Float[Array, "batch token head feature"]
Angles = Float[Array, "token angle"]


class VelocityTransformer(nn.Module):
    """A transformer whose tokens are square patches of a map; its output is zero before training.

    Attributes:
      shape: rows, columns and channels of the map.
      patch: rows and columns of the patch that is one token; divides those of the map.
      width: features of a token.
      blocks: number of transformer blocks.
      head_size: features of a head of attention, a multiple of 4 that divides `width`.
      dtype: dtype of the matrix products; the residual stream is float32.
      remat: whether the gradient of a block keeps the outputs of its dense layers alone, and
        computes all else again, attention among it.
    """

    shape: tuple[int, int, int]
    patch: int
    width: int
    blocks: int
    head_size: int
    dtype: str = "float32"
    remat: bool = False

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch latent"],
        time: Float[Array, "batch"],
        condition: Condition | None = None,
    ) -> Float[Array, "batch latent"]:
        """Returns the output for inputs of unit variance at times in [0, 1], float32.

        Args:
          x: maps, row by row as one vector each.
          time: the time of each map.
          condition: what is known of the labels of each map; None for a network without labels.
        """
        rows, columns, _ = self.shape
        grid = rows // self.patch, columns // self.patch
        tokens = to_tokens(x.reshape(-1, *self.shape), self.patch)
        hidden = nn.Dense(self.width, dtype=self.dtype)(tokens).astype(jnp.float32)
        # Rotary positions are only relative, and a face is at the same place in every picture.
        place = self.param(
            "position", nn.initializers.normal(0.02), (tokens.shape[1], self.width), jnp.float32
        )
        hidden = hidden + place[None]
        embedding = nn.Dense(self.width)(nn.silu(nn.Dense(self.width)(time_features(time))))
        if condition is not None:
            embedding = embedding + LabelEmbedding(self.width, name="labels")(condition)
        embedding = nn.silu(embedding)
        block: Any = _Block
        if self.remat:
            keep = jax.checkpoint_policies.save_only_these_names(_DENSE)
            # In a loop nothing can be merged with the first computation (`prevent_cse`).
            block = nn.remat(_Block, prevent_cse=False, policy=keep)
        # A loop over blocks with stacked parameters: it compiles in the time of one block.
        stack = nn.scan(
            block,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=(nn.broadcast, nn.broadcast),
            length=self.blocks,
        )
        hidden, _ = stack(self.head_size, self.dtype, name="blocks")(
            hidden, embedding, rotary_angles(*grid, self.head_size)
        )
        zero = nn.initializers.zeros_init()
        modulation = nn.Dense(2 * self.width, kernel_init=zero)(embedding)
        scale, shift = jnp.split(modulation[:, None], 2, axis=-1)
        hidden = _unit_rms(hidden) * (1.0 + scale) + shift
        out = nn.Dense(tokens.shape[-1], dtype=self.dtype, kernel_init=zero)(hidden)
        return to_map(out.astype(jnp.float32), self.shape, self.patch).reshape(x.shape)


class _Block(nn.Module):
    """Attention and a gated MLP, each scaled, shifted and gated by an embedding (adaLN-Zero)."""

    head_size: int
    dtype: str

    @nn.compact
    def __call__(
        self, hidden: Tokens, embedding: Float[Array, "batch width"], angles: Angles
    ) -> tuple[Tokens, None]:
        width = hidden.shape[-1]
        zero = nn.initializers.zeros_init()
        modulation = checkpoint_name(nn.Dense(6 * width, kernel_init=zero)(embedding), _DENSE)
        scale, shift, gate, scale_mlp, shift_mlp, gate_mlp = jnp.split(
            modulation[:, None], 6, axis=-1
        )
        x = _unit_rms(hidden) * (1.0 + scale) + shift
        hidden = hidden + gate * self._attention(x, angles).astype(jnp.float32)
        x = _unit_rms(hidden) * (1.0 + scale_mlp) + shift_mlp
        # Two thirds of the usual four times as many units: SwiGLU has three matrices, not two.
        gates, values = jnp.split(self._dense(2 * (8 * width // 3), x), 2, axis=-1)
        mlp = self._dense(width, nn.silu(gates) * values)
        return hidden + gate_mlp * mlp.astype(jnp.float32), None

    def _attention(self, x: Tokens, angles: Angles) -> Tokens:
        batch, tokens, width = x.shape
        # Split before the heads have an axis: a TPU would copy the slices of an axis of three.
        query, key, value = (
            some.reshape(batch, tokens, -1, self.head_size)
            for some in jnp.split(self._dense(3 * width, x), 3, axis=-1)
        )

        def normalised(name: str, of: Heads) -> Heads:
            scale = self.param(name, nn.initializers.ones_init(), (self.head_size,), jnp.float32)
            scaled = _unit_rms(of.astype(jnp.float32)) * scale[None, None, None]
            return rotated(scaled, angles).astype(self.dtype)

        query, key = normalised("query_scale", query), normalised("key_scale", key)
        logits = jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type=jnp.float32)
        weights = jax.nn.softmax(logits / math.sqrt(self.head_size)).astype(self.dtype)
        out = jnp.einsum("bhqk,bkhd->bqhd", weights, value)
        return self._dense(width, out.reshape(x.shape))

    def _dense(self, features: int, x: OtherTokens) -> OtherTokens:
        return checkpoint_name(nn.Dense(features, dtype=self.dtype)(x), _DENSE)


def to_tokens(maps: Float[Array, "batch row column channel"], patch: int) -> OtherTokens:
    """Cuts maps into square patches of `patch` rows and columns, one token each, row by row."""
    batch, rows, columns, channels = maps.shape
    grid = maps.reshape(batch, rows // patch, patch, columns // patch, patch, channels)
    return grid.swapaxes(2, 3).reshape(batch, -1, patch * patch * channels)


def to_map(
    tokens: OtherTokens, shape: tuple[int, int, int], patch: int
) -> Float[Array, "batch row column channel"]:
    """Undoes `to_tokens` for maps of this shape."""
    rows, columns, channels = shape
    grid = tokens.reshape(-1, rows // patch, columns // patch, patch, patch, channels)
    return grid.swapaxes(2, 3).reshape(-1, *shape)


def rotary_angles(rows: int, columns: int, head_size: int) -> Angles:
    """Returns the angles by which the pairs of features of a head are rotated at each position.

    Half of the pairs rotate with the row and half with the column, each pair with a wavelength of
    its own (Su et al., "RoFormer", 2021, eq. 34, along two axes).

    Args:
      rows, columns: number of positions along each axis.
      head_size: features of a head, a multiple of 4; it has half as many pairs.
    """
    frequencies = _ROTARY_BASE ** -jnp.linspace(0.0, 1.0, head_size // 4, endpoint=False)
    row, column = jnp.divmod(jnp.arange(rows * columns), columns)
    of_rows, of_columns = (
        place.astype(jnp.float32)[:, None] * frequencies[None] for place in (row, column)
    )
    return jnp.concatenate([of_rows, of_columns], axis=1)


def rotated(heads: Heads, angles: Angles) -> Heads:
    """Rotates pairs of features, the i-th with the (i + half)-th, by the angles of their position.

    The scalar product of two rotated vectors depends on their positions only by the difference.
    """
    cosine, sine = jnp.cos(angles), jnp.sin(angles)
    cosine = jnp.concatenate([cosine, cosine], axis=-1)[None, :, None]
    sine = jnp.concatenate([-sine, sine], axis=-1)[None, :, None]
    # Whole heads, because halves would leave half of a TPU's lanes empty.
    return heads * cosine + jnp.roll(heads, angles.shape[-1], axis=-1) * sine


def _unit_rms(x: Array) -> Array:
    """Scales the last axis to a root mean square of one (Zhang and Sennrich, "RMSNorm", 2019)."""
    return x * jax.lax.rsqrt(jnp.mean(x**2, axis=-1, keepdims=True) + 1e-6)
