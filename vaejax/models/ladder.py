"""The ladder: a bidirectional, top-down hierarchical VAE.

The encoder runs bottom-up, from fine to coarse, and stores the features of each of its blocks. The
decoder runs top-down, from coarse to fine. Each of its blocks has a group of latents, whose prior
depends on all groups above and whose posterior also sees the features of the encoder block at the
same place (Sonderby et al. 2016; VDVAE, Child 2021; Efficient-VDVAE, Hazami et al. 2022).

There is no normalisation. Instead, the more residual branches there are, the smaller their initial
weights, and by default standard deviations are a softplus of the network's outputs, which grows
linearly and not exponentially. No parameter of the levels belongs to a single position, so that
the same parameters serve pictures of other sizes, if the same levels are at most 2 positions high
or wide (these have 1 x 1 kernels). The same holds for the head of a mixture.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int, UInt8

from vaejax.likelihoods import to_unit
from vaejax.models.blocks import (
    Conv1x1,
    Maps,
    OtherMaps,
    activation,
    depth_to_space,
    space_to_depth,
)
from vaejax.models.inference import Inference
from vaejax.models.ladder_blocks import DecoderBlock, EncoderBlock, FromPosterior, FromPrior, Group
from vaejax.models.latent_levels import Levels
from vaejax.models.noise import PRIOR, Keys, fold_in, normal
from vaejax.runtime.shards import blocks_are_sharded, gathered_block

# One array for each level that has groups, coarsest first: the latents [batch, group, row, column,
# channel], and the features of the encoder's blocks [group, batch, row, column, channel].
Latents = tuple[Float[Array, "batch _ _ _ _"], ...]
Features = tuple[Float[Array, "_ batch _ _ _"], ...]


class Ladder(nn.Module):
    """A hierarchical VAE: q(z|x), p(z) and p(x|z) with z in groups.

    Attributes:
      levels: the shapes of the levels and the groups of latents at each.
      widths: channels of each level, finest first.
      hidden: channels inside the residual branches of each level, finest first.
      spread: the function that maps network outputs to standard deviations, softplus | exp.
      skips: block | level, whether a decoder block sees the encoder block at its place or the last
        encoder block of its level.
      dropout: probability with which a channel of a residual branch is dropped in training.
      scan: whether the equal blocks of a level run as a loop, which compiles faster. Results and
        parameters are the same either way.
      remat: whether a block's activations are recomputed for its gradient instead of stored.
      head: maps the finest level's values for each pixel to the parameters of p(x|z).
      dtype: dtype of the activations; Gaussians and their KL are float32.
    """

    levels: Levels
    widths: tuple[int, ...]
    hidden: tuple[int, ...]
    spread: str
    skips: str
    dropout: float
    scan: bool
    remat: bool
    head: nn.Module
    dtype: jnp.dtype

    def setup(self):
        """Declares for each level with groups a stack of encoder blocks and of decoder blocks."""
        levels = range(len(self.widths))
        self.downs = [Conv1x1(width, self.dtype) for width in self.widths]
        # In reverse, so that the stacked outputs lie in the order in which decoder blocks use them.
        self.bottom_up = [self._stack(EncoderBlock, level, 1, reverse=True) for level in levels]
        self.start = self.param("start", nn.initializers.normal(0.1), self.widths[-1:], jnp.float32)
        # Indexed in the order of computation: `top_down[0]` is the coarsest level.
        of_group: dict[str, Any] = {"latent": self.levels.latent, "spread": self.spread}
        self.top_down = [
            self._stack(DecoderBlock, level, 2, **of_group) for level in reversed(levels)
        ]
        self.ups = [Conv1x1(width, self.dtype) for width in self.widths[-2::-1]]
        self.out = Conv1x1(self.levels.patch**2 * self.head.inputs(), self.dtype)

    def _stack(
        self, block: type[nn.Module], level: int, keys: int, *, reverse: bool = False, **own: Any
    ) -> nn.Module | None:
        depth, width = self.levels.blocks[level], self.widths[level]
        if not depth:
            return None
        if blocks_are_sharded():
            block = nn.map_variables(block, "params", trans_in_fn=gathered_block)
        if self.remat:
            # In a loop XLA cannot merge the recomputation with the forward pass anyway.
            block = nn.remat(block, prevent_cse=not self.scan)
        stack = nn.scan(
            block,
            # `tasks.vae.intermediates` captures the outputs of each block.
            variable_axes={"params": 0, "intermediates": 0},
            split_rngs={"params": True},
            in_axes=(0, *[nn.broadcast] * keys),
            length=depth,
            reverse=reverse,
            unroll=1 if self.scan else depth,
        )
        return stack(
            width=width,
            hidden=self.hidden[level],
            taps=3 if min(self.levels.size(level)) > 2 else 1,
            gain=1.0 / math.sqrt(sum(self.levels.blocks)),
            dropout=self.dropout,
            dtype=self.dtype,
            **own,
        )

    def resolutions(self) -> tuple[str, ...]:
        """The resolution of each group as `ROWSxCOLUMNS`, from the top."""
        shapes = self.levels.latent_shapes()
        return self.levels.by_group([f"{rows}x{columns}" for rows, columns, _ in shapes])

    def factors(self) -> tuple[int, ...]:
        """The number of latent dimensions of each group, from the top."""
        return self.levels.by_group([math.prod(shape) for shape in self.levels.latent_shapes()])

    def code_shape(self) -> None:
        """None: a ladder's latents are several arrays."""

    def features(
        self, images: UInt8[Array, "batch height width channel"], dropout: Keys | None = None
    ) -> Features:
        """Returns the features that decoder blocks take from the encoder, the input of `infer`.

        Args:
          images: the pictures.
          dropout: one key for each picture; None drops nothing.

        Returns:
          For each level that has groups, coarsest first, [group, batch, row, column, channel].
        """
        x, skips, first = to_unit(images).astype(self.dtype), [], 0
        for level, depth in enumerate(self.levels.blocks):
            block = self.levels.patch if level == 0 else 2
            rows, columns = self.levels.size(level)
            x = _extended(x, rows * block, columns * block)
            x = self.downs[level](space_to_depth(x, block))
            stack = self.bottom_up[level]
            if stack is not None:
                x, left = stack(x, first + jnp.arange(depth), dropout)
                if self.skips == "level":
                    left = jnp.broadcast_to(x, left.shape)
                skips.append(left)
                first += depth
        return tuple(reversed(skips))

    def _descend(
        self,
        count: int,
        steps: Sequence[FromPosterior | FromPrior],
        keys: Keys | None = None,
        dropout: Keys | None = None,
    ) -> tuple[Any, list[Group]]:
        """Runs the decoder from the top to the pixels.

        `steps` and the returned list have one entry for each level that has groups, coarsest
        first, with the groups of the level stacked along the first axis.
        """
        top = len(self.widths) - 1
        shape = (count, *self.levels.size(top), self.widths[top])
        x = jnp.broadcast_to(self.start[None, None, None], shape).astype(self.dtype)
        steps, groups = list(steps), []
        for level in reversed(range(len(self.widths))):
            if level < top:
                rows, columns = self.levels.size(level)
                x = self.ups[top - 1 - level](x)
                x = x.repeat(2, axis=1).repeat(2, axis=2)[:, :rows, :columns]
            stack = self.top_down[top - level]
            if stack is not None:
                x, group = stack(x, steps.pop(0), keys, dropout)
                groups.append(group)
        height, width, _ = self.levels.image_shape
        hidden = depth_to_space(self.out(activation(x)), self.levels.patch)[:, :height, :width]
        return self.head(hidden.astype(jnp.float32)), groups

    def infer(self, features: Features, keys: Keys, *, dropout: Keys | None = None) -> Inference:
        """Samples every group from its posterior, from the top, and decodes.

        Args:
          features: what `features` returns for the pictures.
          keys: one key for each picture, for the posterior's noise.
          dropout: one key for each picture; None drops nothing.

        Returns:
          The terms of the ELBO; `kl` has a column for each group, from the top; `codes` is None.
        """
        pixels, groups = self._inferred(features, keys, dropout)
        kl = jnp.concatenate([group.kl for group in groups]).T
        log_ratio = jnp.asarray(sum(jnp.sum(group.log_ratio, axis=0) for group in groups))
        return Inference(kl, log_ratio, pixels, None)

    def reconstruct(self, images: UInt8[Array, "batch height width channel"]) -> Any:
        """Returns the parameters of p(x|z) with every group at the mean of its posterior."""
        return self._inferred(self.features(images))[0]

    def posterior(
        self, images: UInt8[Array, "batch height width channel"], keys: Keys | None = None
    ) -> tuple[Latents, Latents]:
        """Returns latents from q(z|x), and the standard deviations of the groups' posteriors.

        Args:
          images: the pictures.
          keys: one key for each picture, to sample its latents; None takes the mean of each
            group's posterior given the means of all groups above.
        """
        _, groups = self._inferred(self.features(images), keys)
        return _by_picture([g.z for g in groups]), _by_picture([g.std for g in groups])

    def _inferred(
        self, features: Features, keys: Keys | None = None, dropout: Keys | None = None
    ) -> tuple[Any, list[Group]]:
        steps = [FromPosterior(*pair) for pair in zip(features, self.levels.group_numbers())]
        return self._descend(features[0].shape[1], steps, keys, dropout)

    def redraw(
        self, z: Latents, keep: Bool[Array, "group"], noise: Latents
    ) -> tuple[Any, Latents, Latents]:
        """Keeps the latents of some groups, samples the others from their prior, and decodes.

        Args:
          z: latents; only those of the groups to keep are used.
          keep: whether to keep each group's latents, from the top. The other groups come from
            their prior given all groups above.
          noise: the prior's noise for the other groups, standard normal at temperature 1.

        Returns:
          The parameters of p(x|z), the latents of all groups, and the noise from which the prior
          makes them.
        """
        levels = zip(z, noise, self.levels.group_numbers())
        steps = [
            FromPrior(jnp.moveaxis(of_group, 1, 0), keep[groups], jnp.moveaxis(eps, 1, 0))
            for of_group, eps, groups in levels
        ]
        pixels, groups = self._descend(z[0].shape[0], steps)
        return pixels, _by_picture([g.z for g in groups]), _by_picture([g.noise for g in groups])

    def decode(self, z: Latents) -> Any:
        """Returns the parameters of p(x|z) for every pixel."""
        return self.redraw(z, self._every(True), z)[0]

    def noise(
        self, keys: Keys, temperature: float | Float[Array, ""] | Float[Array, "group"] = 1.0
    ) -> Latents:
        """Draws the prior's noise for every group of each picture.

        Args:
          keys: one key for each picture.
          temperature: standard deviation of the noise, one for all groups or one for each, from
            the top.
        """
        temperatures = jnp.broadcast_to(jnp.asarray(temperature), len(self.factors()))
        keys = fold_in(keys, PRIOR)

        def of_level(groups: Int[Array, "group"], shape: tuple[int, ...]) -> Array:
            def of_group(group: Int[Array, ""]) -> Array:
                return temperatures[group] * normal(fold_in(keys, group), shape)

            return jax.vmap(of_group, out_axes=1)(groups)

        return tuple(map(of_level, self.levels.group_numbers(), self.levels.latent_shapes()))

    def from_noise(self, noise: Latents) -> Latents:
        """Maps noise to latents with the prior."""
        return self.redraw(noise, self._every(False), noise)[1]

    def to_noise(self, z: Latents) -> Latents:
        """Maps latents to noise; the inverse of `from_noise`."""
        return self.redraw(z, self._every(True), z)[2]

    def generate(self, noise: Latents) -> Any:
        """Maps noise to latents with the prior and decodes them, in one pass of the decoder."""
        return self.redraw(noise, self._every(False), noise)[0]

    def _every(self, keep: bool) -> Bool[Array, "group"]:
        return jnp.full(len(self.factors()), keep)

    def __call__(self, images: UInt8[Array, "batch height width channel"]) -> None:
        """Uses every parameter once, so that `init` creates it; not meant for any other use."""
        self.infer(self.features(images), jax.random.split(jax.random.key(0), images.shape[0]))


def _extended(x: Maps, height: int, width: int) -> OtherMaps:
    """Pads to this size by repeating the border; zeros would look like a grey edge."""
    missing = (0, height - x.shape[1]), (0, width - x.shape[2])
    # Even padding by nothing has a gradient, for which devices would exchange feature maps.
    if missing == ((0, 0), (0, 0)):
        return x
    return jnp.pad(x, ((0, 0), *missing, (0, 0)), mode="edge")


def _by_picture(levels: list[Float[Array, "_ batch _ _ _"]]) -> Latents:
    return tuple(jnp.moveaxis(level, 0, 1) for level in levels)
