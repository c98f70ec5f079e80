"""The priors' settings: each class is a choice of `config.prior.name`."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from vaejax.config.models import ModelConfig
from vaejax.config.options import option
from vaejax.errors import UserError

FITTED_PRIORS = ("gaussian", "mixture", "flow_matching")
# What is fitted to a ladder in their place.
TEMPERATURES = "temperatures"
_FITTED = (*FITTED_PRIORS, TEMPERATURES)
# The most dimensions of codes to which these are fitted, because of their full covariances. At its
# limit, 16,000 codes cost a Gaussian 0.6 TFLOP, and ten components 0.7 TFLOP in each of up to a
# hundred steps: on two cores half a minute, and ten minutes.
MOST_DIMENSIONS = {"gaussian": 4_096, "mixture": 1_024}


def check_fitted(names: Iterable[str], latent_shape: tuple[int, ...]) -> None:
    """Checks that priors can be fitted to the codes of a model.

    Args:
      names: names of `FITTED_PRIORS`.
      latent_shape: `Config.latent_shape`.

    Raises:
      UserError: the codes have too many dimensions for one of the priors.
    """
    dimensions = math.prod(latent_shape)
    for name in names:
        most = MOST_DIMENSIONS.get(name, dimensions)
        if dimensions > most:
            raise UserError(
                f"prior {name!r} has a full covariance, for codes of at most {most:,} dimensions, "
                f"and this model's have {dimensions:,}; leave it out (of "
                "config.prior.fitted and config.finish.prior), or train a model with fewer"
            )


@dataclass(frozen=True)
class VectorPriorConfig:
    """A prior over one latent vector z, trained with the model."""

    name: str = option("")
    # Priors fitted to the training codes when training ends.
    fitted: tuple[str, ...] = option(("gaussian",), choices=_FITTED, may_change=True)

    def check(self, model: ModelConfig, latent_shape: tuple[int, ...]) -> None:
        """Raises UserError if the model's latents are groups, or temperatures are to be fitted.

        Args:
          model: settings of the model.
          latent_shape: `Config.latent_shape`.
        """
        if model.has_groups:
            raise UserError(
                f"config.prior.name={self.name!r} is of a flat z, and config.model.name="
                f"{model.name} has none; begin with a config file of a ladder, such as "
                "configs/celeba_ladder.py, which sets all that one needs"
            )
        if TEMPERATURES in self.fitted:
            raise UserError(
                f"config.prior.fitted={self.fitted}: {TEMPERATURES} are fitted to a ladder; choose "
                f"from {', '.join(FITTED_PRIORS)}"
            )


@dataclass(frozen=True)
class CouplingFlowConfig(VectorPriorConfig):
    """A normalising flow of affine coupling layers."""

    name: str = option("coupling_flow")
    # Number of coupling layers.
    layers: int = option(8, low=1)
    # Units of each hidden layer of the networks that compute shift and scale.
    width: int = option(128, low=1)

    def check(self, model: ModelConfig, latent_shape: tuple[int, ...]) -> None:
        """Raises UserError unless the latents are one vector: the networks are fully connected."""
        super().check(model, latent_shape)
        if len(latent_shape) > 1:
            raise UserError(
                f"config.prior.name='coupling_flow' is of one vector z, and config.model.name="
                f"{model.name} has a map of latents; name standard_normal"
            )


@dataclass(frozen=True)
class StandardNormalConfig(VectorPriorConfig):
    """The standard normal distribution N(0, I)."""

    name: str = option("standard_normal")


@dataclass(frozen=True)
class HierarchicalConfig:
    """The priors of a ladder's groups, each given the groups above; they are part of the model."""

    name: str = option("hierarchical")
    # `temperatures`: when training ends, fits those at which each resolution is sampled. A ladder
    # has no flat z to whose codes a prior could be fitted.
    fitted: tuple[str, ...] = option((), choices=_FITTED, may_change=True)

    def check(self, model: ModelConfig, latent_shape: tuple[int, ...]) -> None:
        """Raises UserError if the model's latents are no groups, or priors are to be fitted."""
        if not model.has_groups:
            raise UserError(
                "config.prior.name='hierarchical' is of a ladder's groups, and config.model.name="
                f"{model.name} has none; name standard_normal, or for one vector coupling_flow"
            )
        others = [name for name in self.fitted if name != TEMPERATURES]
        if others:
            raise UserError(
                f"config.prior.fitted={self.fitted} names priors of a flat z, and config.model."
                f"name={model.name} has none; name {TEMPERATURES}, or nothing"
            )


PriorConfig = CouplingFlowConfig | StandardNormalConfig | HierarchicalConfig
