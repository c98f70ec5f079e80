"""The likelihoods' settings: each class is a choice of `config.likelihood.name`.

Each class has `bits`, the number of most significant bits of each value that are modelled, and
`learns_scale`: whether its scale is learned, so that it can always describe even noise as well as
raw pixels do.
"""

from dataclasses import dataclass
from typing import ClassVar

from vaejax.config.models import ModelConfig
from vaejax.config.options import option
from vaejax.errors import UserError


@dataclass(frozen=True)
class LocationScaleConfig:
    """A distribution of each value with a location and a scale."""

    name: str = option("")
    # shared: one per channel; position: one per pixel and channel, the same for all pictures;
    # predicted: one per value of each picture, by the decoder; fixed: `fixed_scale`.
    scale: str = option("position", choices=("shared", "position", "predicted", "fixed"))
    # The fixed scale, in grey levels of 255. It is the standard deviation of a Gaussian; that of a
    # logistic is 1.8 times as large.
    fixed_scale: float = option(19.0, low=0.1, high=255)

    @property
    def learns_scale(self) -> bool:
        """Whether the scale is learned."""
        return self.scale != "fixed"

    def check(self, model: ModelConfig) -> None:
        """Raises UserError if one scale per position would tie a ladder to pictures of one size."""
        if model.has_groups and self.scale == "position":
            raise UserError(
                "config.likelihood.scale='position' would tie a ladder to pictures of one size; "
                "name predicted, or shared"
            )


@dataclass(frozen=True)
class LogisticConfig(LocationScaleConfig):
    """A discretised logistic distribution."""

    name: str = option("logistic")
    # Of each value that count, the highest.
    bits: int = option(8, choices=(5, 8))


@dataclass(frozen=True)
class GaussianConfig(LocationScaleConfig):
    """A discretised Gaussian distribution."""

    name: str = option("gaussian")

    bits: ClassVar[int] = 8


@dataclass(frozen=True)
class BernoulliConfig:
    """The Bernoulli cross-entropy, normalised over the levels of a value; it has no scale."""

    name: str = option("bernoulli")

    bits: ClassVar[int] = 8
    scale: ClassVar[str] = "fixed"
    learns_scale: ClassVar[bool] = False

    def check(self, model: ModelConfig) -> None:
        """Accepts every model; raises nothing."""


@dataclass(frozen=True)
class MixtureConfig:
    """A mixture of logistics, autoregressive over colours, whose components learn their scales."""

    name: str = option("mixture")
    # Number of logistics in the mixture.
    components: int = option(10, low=1)
    # Of each value that count, the highest.
    bits: int = option(8, choices=(5, 8))

    learns_scale: ClassVar[bool] = True

    def check(self, model: ModelConfig) -> None:
        """Accepts every model; raises nothing."""


LikelihoodConfig = LogisticConfig | GaussianConfig | BernoulliConfig | MixtureConfig
