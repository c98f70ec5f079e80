"""The ladder: a bidirectional, top-down hierarchical VAE.

The encoder climbs from fine to coarse and leaves the features of each of its blocks. The decoder
comes down from coarse to fine; each of its blocks has a group of latents, whose prior depends on
all groups above and whose posterior also sees what the encoder's block at the same place left
(Sonderby et al. 2016; VDVAE, Child 2021; Efficient-VDVAE, Hazami et al. 2022).

No normalisation: residual branches start small for their number, and standard deviations grow
linearly, not exponentially, in what the network gives. No number belongs to a single position, so
parameters serve pictures of other sizes (whose smallest levels are as small).
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, UInt8

from vaejax.likelihoods import to_unit
from vaejax.models.blocks import Conv1x1, activation, depth_to_space, space_to_depth
from vaejax.models.inference import Inference
from vaejax.models.ladder_blocks import DecoderBlock, EncoderBlock, Generated, Group, Inferred
from vaejax.noise import Keys, fold_in, normal

# Of each level that has groups, coarsest first: latents [batch, group, row, column, channel], and
# what the encoder's blocks leave [group, batch, row, column, channel].
Latents = tuple[Float[Array, "batch _ _ _ _"], ...]
Features = tuple[Float[Array, "_ batch _ _ _"], ...]


class Ladder(nn.Module):
    """q(z|x), p(z) and p(x|z), z in groups.

    Attributes:
      image_shape: height, width and channels.
      widths: channels of each level, finest first; each halves height and width.
      blocks: of encoder and decoder, and groups of latents, at each level.
      patch: side of the square of pixels that the finest level sees as one position.
      latent: channels of a group.
      hidden: channels inside the residual branches of each level.
      spread: softplus | exp.
      skips: whether a decoder block sees the encoder's `block` at its place, or the last one of
        its `level`.
      dropout: share of channels left out in training.
      scan: the equal blocks of a level as a loop, which compiles faster. The numbers and the
        parameters are the same either way.
      remat: a block's activations are computed again for its gradient instead of kept.
      head: what the finest level says of each pixel, to the likelihood's pixels.
      dtype: of the activations; Gaussians and their KL are float32.
    """

    image_shape: tuple[int, int, int]
    widths: tuple[int, ...]
    blocks: tuple[int, ...]
    patch: int
    latent: int
    hidden: tuple[int, ...]
    spread: str
    skips: str
    dropout: float
    scan: bool
    remat: bool
    head: nn.Module
    dtype: jnp.dtype

    def setup(self):
        """One stack of encoder and of decoder blocks for each level that has any."""
        levels = range(len(self.widths))
        gain = 1.0 / math.sqrt(sum(self.blocks))
        self.downs = [Conv1x1(width, self.dtype) for width in self.widths]
        self.ups = [Conv1x1(width, self.dtype) for width in self.widths[:-1]]
        self.start = self.param("start", nn.initializers.normal(0.1), self.widths[-1:], jnp.float32)
        self.encoders = [self._stack(EncoderBlock, level, gain, 1) for level in levels]
        self.decoders = [
            self._stack(DecoderBlock, level, gain, 2, latent=self.latent, spread=self.spread)
            for level in levels
        ]
        self.out = Conv1x1(self.patch**2 * self.head.inputs(), self.dtype)

    def _stack(
        self, block: type[nn.Module], level: int, gain: float, keys: int, **own: Any
    ) -> nn.Module | None:
        depth, width = self.blocks[level], self.widths[level]
        if not depth:
            return None
        if self.remat:
            # In a loop nothing can be merged across the gradient anyway.
            block = nn.remat(block, prevent_cse=not self.scan)
        stack = nn.scan(
            block,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=(0, *[nn.broadcast] * keys),
            length=depth,
            unroll=1 if self.scan else depth,
        )
        return stack(
            width=width,
            hidden=self.hidden[level],
            taps=3 if min(self._size(level)) > 2 else 1,
            gain=gain,
            dropout=self.dropout,
            dtype=self.dtype,
            **own,
        )

    def _size(self, level: int) -> tuple[int, int]:
        """Rows and columns of a level."""
        unit = self.patch * 2**level
        return math.ceil(self.image_shape[0] / unit), math.ceil(self.image_shape[1] / unit)

    def resolutions(self) -> tuple[str, ...]:
        """Rows x columns of each group, from the top."""
        return tuple(
            "{}x{}".format(*self._size(level))
            for level in self._inhabited()
            for _ in range(self.blocks[level])
        )

    def _inhabited(self) -> list[int]:
        """The levels that have groups, coarsest first."""
        return [level for level in reversed(range(len(self.blocks))) if self.blocks[level]]

    def _group_numbers(self) -> list[Int[Array, "group"]]:
        """Of each inhabited level, counted from the top."""
        numbers, first = [], 0
        for level in self._inhabited():
            numbers.append(first + jnp.arange(self.blocks[level]))
            first += self.blocks[level]
        return numbers

    def code_size(self) -> None:
        """There is no flat z."""

    def factors(self) -> tuple[int, ...]:
        """Latent dimensions of each group, from the top."""
        return tuple(
            math.prod(self._size(level)) * self.latent
            for level in self._inhabited()
            for _ in range(self.blocks[level])
        )

    def features(
        self, images: UInt8[Array, "batch height width channel"], dropout: Keys | None = None
    ) -> Features:
        """What the encoder's blocks leave at each inhabited level, coarsest first.

        Args:
          images: the pictures.
          dropout: of the channels to leave out.
        """
        x, skips, first = to_unit(images).astype(self.dtype), [], 0
        for level, depth in enumerate(self.blocks):
            block = self.patch if level == 0 else 2
            rows, columns = self._size(level)
            # Repeating the border continues the picture; zeros would draw a grey edge.
            missing = ((0, rows * block - x.shape[1]), (0, columns * block - x.shape[2]))
            x = jnp.pad(x, ((0, 0), *missing, (0, 0)), mode="edge")
            x = self.downs[level](space_to_depth(x, block))
            if depth:
                x, left = self.encoders[level](x, first + jnp.arange(depth), dropout)
                if self.skips == "level":
                    left = jnp.broadcast_to(x, left.shape)
                # The decoder's first block at a level is the encoder's last.
                skips.append(left[::-1])
                first += depth
        return tuple(reversed(skips))

    def _descend(
        self,
        count: int,
        steps: Sequence[Inferred | Generated],
        keys: Keys | None = None,
        dropout: Keys | None = None,
    ) -> tuple[Any, list[Group]]:
        """From the top to the pixels; a step and a `Group` for each inhabited level."""
        rows, columns = self._size(len(self.widths) - 1)
        shape = (count, rows, columns, self.widths[-1])
        x = jnp.broadcast_to(self.start[None, None, None], shape).astype(self.dtype)
        steps, groups = list(steps), []
        for level in reversed(range(len(self.widths))):
            if level < len(self.widths) - 1:
                rows, columns = self._size(level)
                x = self.ups[level](x).repeat(2, axis=1).repeat(2, axis=2)[:, :rows, :columns]
            if self.blocks[level]:
                x, group = self.decoders[level](x, steps.pop(0), keys, dropout)
                groups.append(group)
        height, width, _ = self.image_shape
        hidden = depth_to_space(self.out(activation(x)), self.patch)[:, :height, :width]
        return self.head(hidden.astype(jnp.float32)), groups

    def infer(self, features: Features, keys: Keys, *, dropout: Keys | None = None) -> Inference:
        """Samples every group from its posterior, from the top.

        Args:
          features: of the pictures.
          keys: one for each of them.
          dropout: of the channels to leave out.
        """
        pixels, groups = self._inferred(features, keys, dropout)
        kl = jnp.concatenate([group.kl for group in groups]).T
        log_ratio = sum(jnp.sum(group.log_ratio, axis=0) for group in groups)
        return Inference(kl, log_ratio, pixels, None)

    def likeness(self, images: UInt8[Array, "batch height width channel"]) -> Any:
        """The pixels where every group is the mean of its posterior."""
        return self._inferred(self.features(images))[0]

    def posterior(
        self, images: UInt8[Array, "batch height width channel"], keys: Keys | None = None
    ) -> tuple[Latents, Latents]:
        """Latents, and the standard deviations of the posteriors that they are of.

        Args:
          images: the pictures.
          keys: of samples; without them every group is its posterior's mean, given all above.
        """
        _, groups = self._inferred(self.features(images), keys)
        return _by_picture([g.z for g in groups]), _by_picture([g.std for g in groups])

    def _inferred(
        self, features: Features, keys: Keys | None = None, dropout: Keys | None = None
    ) -> tuple[Any, list[Group]]:
        steps = [Inferred(*pair) for pair in zip(features, self._group_numbers())]
        return self._descend(features[0].shape[1], steps, keys, dropout)

    def generate(
        self,
        z: Latents,
        keep: Bool[Array, "group"],
        noise: Latents,
        temperature: Float[Array, "group"],
    ) -> tuple[Any, Latents, Latents]:
        """Comes down without a picture.

        Args:
          z: latents, of which those of some groups are used.
          keep: whether a group's are, from the top; the other groups are drawn from their prior
            given all above.
          noise: standard normal, for those.
          temperature: of each group; scales that noise.

        Returns:
          The pixels, all latents, and the noise that the prior makes these of.
        """
        steps = [
            Generated(
                jnp.moveaxis(latents, 1, 0),
                keep[groups],
                jnp.moveaxis(eps, 1, 0),
                temperature[groups],
            )
            for latents, eps, groups in zip(z, noise, self._group_numbers())
        ]
        pixels, groups = self._descend(z[0].shape[0], steps)
        return pixels, _by_picture([g.z for g in groups]), _by_picture([g.noise for g in groups])

    def noise(self, keys: Keys) -> Latents:
        """Standard normal noise for every group."""

        def of_level(groups: Int[Array, "group"], shape: tuple[int, ...]) -> Array:
            return jax.vmap(lambda group: normal(fold_in(keys, group), shape), out_axes=1)(groups)

        return tuple(map(of_level, self._group_numbers(), self.latent_shapes()))

    def latent_shapes(self) -> list[tuple[int, int, int]]:
        """Rows, columns and channels of a group at each inhabited level."""
        return [(*self._size(level), self.latent) for level in self._inhabited()]

    def decode(self, z: Latents) -> Any:
        """The distribution of every pixel given `z`."""
        ones = jnp.ones(len(self.factors()))
        return self.generate(z, ones > 0, z, ones)[0]

    def from_noise(self, noise: Latents, temperature: float | Array = 1.0) -> Latents:
        """The latents that the prior makes of standard normal noise."""
        ones = jnp.ones(len(self.factors()))
        return self.generate(noise, ones < 0, noise, temperature * ones)[1]

    def to_noise(self, z: Latents) -> Latents:
        """The inverse of `from_noise`."""
        ones = jnp.ones(len(self.factors()))
        return self.generate(z, ones > 0, z, ones)[2]

    def sample_prior(
        self,
        key: PRNGKeyArray,
        count: int,
        temperature: float | Float[Array, ""] | Float[Array, "group"] = 1.0,
    ) -> Latents:
        """Latents z ~ p(z); a temperature for all groups or one for each, from the top."""
        return self.from_noise(self.noise(jax.random.split(key, count)), temperature)

    def __call__(self, images: UInt8[Array, "batch height width channel"]) -> None:
        """Touches every parameter once; only for initialisation."""
        self.infer(self.features(images), jax.random.split(jax.random.key(0), images.shape[0]))


def _by_picture(levels: list[Float[Array, "_ batch _ _ _"]]) -> Latents:
    return tuple(jnp.moveaxis(level, 0, 1) for level in levels)
