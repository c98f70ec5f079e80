"""The models' settings: each class is a choice of `config.model.name`."""

import math
from dataclasses import dataclass
from typing import ClassVar

from vaejax.config.options import option
from vaejax.errors import UserError

LEAST_FEATURES = 16


@dataclass(frozen=True)
class LevelsConfig:
    """The settings of all networks: levels, each half as high and wide as the one before."""

    name: str = option("")
    # Channels at each resolution, finest first; each level halves height and width.
    widths: tuple[int, ...] = option((48, 96, 192), low=1)
    # Residual blocks at each resolution, finest first; in a ladder each has a group of latents.
    blocks: tuple[int, ...] = option((1, 1, 1), low=0)
    # Side of the square patch that the first convolution sees as one position.
    patch: int = option(4, choices=(1, 2, 4))
    # Dtype of the activations; parameters, KL and likelihood sums are always float32.
    dtype: str = option("float32", choices=("float32", "bfloat16"))

    @property
    def pixel_features(self) -> int:
        """Number of features per pixel, from which a linear map computes its mixture's parameters.

        It is width / patch of the finest level, and at least 16. That lies between width / patch^2,
        the channels that a position has for each of its pixels, and the width itself, with which
        this map would be the largest of the model.
        """
        return max(LEAST_FEATURES, self.widths[0] // self.patch)

    def latent_shape(self, image_size: tuple[int, int]) -> tuple[int, ...]:
        """The shape of one picture's latents; () for a network that has no single array of them.

        Args:
          image_size: height and width of the pictures in pixels.
        """
        return ()

    def check(self, image_size: tuple[int, int]) -> None:
        """Checks the levels.

        Args:
          image_size: height and width of the pictures in pixels.

        Raises:
          UserError: `widths` and `blocks` name different numbers of levels or none, or the pictures
            are too small for so many levels.
        """
        if len(self.widths) != len(self.blocks):
            raise UserError(
                f"config.model.blocks={self.blocks} must have one number for each of "
                f"config.model.widths={self.widths}"
            )
        if not self.widths:
            raise UserError(
                "config.model.widths=() must name at least one level, such as (64, 128)"
            )
        shrink = self.patch * 2 ** (len(self.widths) - 1)
        if min(image_size) < shrink:
            raise UserError(
                f"config.model.widths={self.widths} with config.model.patch={self.patch} divides "
                f"the side by {shrink}, more than config.data.image_size={image_size} has; name "
                "fewer widths"
            )


@dataclass(frozen=True)
class ConvConfig(LevelsConfig):
    """A convolutional VAE with one latent vector z, to whose codes priors can be fitted."""

    name: str = option("conv")
    # Dimensions of z.
    latent_size: int = option(128, low=1)

    has_groups: ClassVar[bool] = False

    def latent_shape(self, image_size: tuple[int, int]) -> tuple[int]:
        """The number of dimensions of z, whatever the size of the pictures."""
        return (self.latent_size,)


@dataclass(frozen=True)
class SpatialConfig(LevelsConfig):
    """A convolutional VAE whose latents are a map with the resolution of the coarsest level.

    The map has 1 / f of the pictures' height and width, with f = patch * 2^(levels - 1).
    """

    name: str = option("spatial")
    # Channels of the map.
    latent: int = option(16, low=1)

    has_groups: ClassVar[bool] = False

    def latent_shape(self, image_size: tuple[int, int]) -> tuple[int, int, int]:
        """The rows, columns and channels of the map; a part of a position counts as one.

        Args:
          image_size: height and width of the pictures in pixels.
        """
        unit = self.patch * 2 ** (len(self.widths) - 1)
        return math.ceil(image_size[0] / unit), math.ceil(image_size[1] / unit), self.latent


@dataclass(frozen=True)
class LadderConfig(LevelsConfig):
    """A hierarchical VAE: groups of latents at several resolutions, each with its own prior."""

    name: str = option("ladder")
    # Channels of a group of latents.
    latent: int = option(16, low=1)
    # Channels inside the residual branches of each level, finest first; (): half the widths.
    hidden: tuple[int, ...] = option((), low=1)
    # Function that maps a network's output to a standard deviation.
    spread: str = option("softplus", choices=("softplus", "exp"))
    # Encoder features that a decoder block sees: of the block at its place, or its level's last.
    skips: str = option("block", choices=("block", "level"))
    # Share of the channels inside a residual branch that are dropped in training.
    dropout: float = option(0.0, low=0, high=0.9)
    # Run the equal blocks of a level as a loop, which compiles faster; the results are the same.
    scan: bool = option(True, may_change=True)
    # Recompute the activations inside a block for its gradient, which saves memory.
    remat: bool = option(False, may_change=True)

    has_groups: ClassVar[bool] = True

    def check(self, image_size: tuple[int, int]) -> None:
        """Checks the levels.

        Args:
          image_size: height and width of the pictures in pixels.

        Raises:
          UserError: as for every model, or `hidden` names another number of levels, or the coarsest
            level has no latents.
        """
        super().check(image_size)
        if self.hidden and len(self.hidden) != len(self.widths):
            raise UserError(
                f"config.model.hidden={self.hidden} must have one number for each of "
                f"config.model.widths={self.widths}, or none at all"
            )
        if not self.blocks[-1]:
            raise UserError(
                f"config.model.blocks={self.blocks} leaves a ladder's top, the last level, without "
                "latents; name a number from 1 on there, or fewer levels"
            )


@dataclass(frozen=True)
class AttributesConfig(LevelsConfig):
    """No VAE, but a network that predicts the attributes of pictures, such as CelebA's forty."""

    name: str = option("attributes")
    # Number of attributes in the data.
    attributes: int = option(40, low=1)
    # Size of the feature vector from which one linear layer predicts all attributes.
    features: int = option(256, low=1)

    has_groups: ClassVar[bool] = False


ModelConfig = ConvConfig | SpatialConfig | LadderConfig | AttributesConfig
