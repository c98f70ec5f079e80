"""The priors' settings: each class is a choice of `config.prior.name`."""

from dataclasses import dataclass

from vaejax.config.models import ModelConfig
from vaejax.config.options import option
from vaejax.errors import UserError

FITTED_PRIORS = ("gaussian", "mixture", "flow_matching")


@dataclass(frozen=True)
class VectorPriorConfig:
    """A prior over one latent vector z, trained with the model."""

    name: str = option("")
    # Priors fitted to the training codes when training ends.
    fitted: tuple[str, ...] = option(("gaussian",), choices=FITTED_PRIORS, may_change=True)

    def check(self, model: ModelConfig) -> None:
        """Raises UserError if the model's latents are groups, which have their own priors."""
        if model.has_groups:
            raise UserError(
                f"config.prior.name={self.name!r} is of a flat z, and config.model.name="
                f"{model.name} has none; begin with a config file of a ladder, such as "
                "configs/celeba_ladder.py, which sets all that one needs"
            )


@dataclass(frozen=True)
class CouplingFlowConfig(VectorPriorConfig):
    """A normalising flow of affine coupling layers."""

    name: str = option("coupling_flow")
    # Number of coupling layers.
    layers: int = option(8, low=1)
    # Units of each hidden layer of the networks that compute shift and scale.
    width: int = option(128, low=1)


@dataclass(frozen=True)
class StandardNormalConfig(VectorPriorConfig):
    """The standard normal distribution N(0, I)."""

    name: str = option("standard_normal")


@dataclass(frozen=True)
class HierarchicalConfig:
    """The priors of a ladder's groups, each given the groups above; they are part of the model."""

    name: str = option("hierarchical")
    # Always empty: a ladder has no flat z to whose codes a prior could be fitted.
    fitted: tuple[str, ...] = option((), choices=FITTED_PRIORS, may_change=True)

    def check(self, model: ModelConfig) -> None:
        """Raises UserError if the model's latents are one vector, or priors are to be fitted."""
        if not model.has_groups:
            raise UserError(
                "config.prior.name='hierarchical' is of a ladder's groups, and config.model.name="
                f"{model.name} has none; name coupling_flow, or standard_normal"
            )
        if self.fitted:
            raise UserError(
                f"config.prior.fitted={self.fitted} names priors of a flat z, and config.model."
                f"name={model.name} has none; set --config.prior.fitted= to nothing"
            )


PriorConfig = CouplingFlowConfig | StandardNormalConfig | HierarchicalConfig
