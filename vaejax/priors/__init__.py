"""Priors p(z) over latent vectors.

`StandardNormal` and `CouplingFlow` are Linen modules, part of the model and trained with it.
`Gaussian`, `Mixture` and `FlowMatching` are fitted afterwards, to the codes of the training
pictures; `fitted.py` fits them by name, and saves and loads them.

Every prior has `log_prob(z)`, in nats. Those of the model also have `to_noise(z)` and its inverse
`from_noise(noise)`, between codes and N(0, I); those fitted have

    sample(key, count, temperature=1.0) -> Float[Array, "count latent"]

where `temperature` scales the standard deviation of the base noise.
"""

import flax.linen as nn

from vaejax.config import CouplingFlowConfig, PriorConfig, StandardNormalConfig
from vaejax.priors.coupling_flow import CouplingFlow
from vaejax.priors.fitted import fit_prior, load_prior, save_prior
from vaejax.priors.flow_matching import FlowMatching
from vaejax.priors.gaussian import Gaussian, fit_gaussian
from vaejax.priors.mixture import Mixture, fit_mixture
from vaejax.priors.standard_normal import StandardNormal

__all__ = [
    "CouplingFlow",
    "FlowMatching",
    "Gaussian",
    "Mixture",
    "StandardNormal",
    "build_prior",
    "fit_gaussian",
    "fit_mixture",
    "fit_prior",
    "load_prior",
    "save_prior",
]


def build_prior(settings: PriorConfig, latent_size: int) -> nn.Module:
    """The prior of a vector z that is trained with the model.

    Raises:
      ValueError: the settings are of a ladder's groups, whose priors are part of it.
    """
    if isinstance(settings, StandardNormalConfig):
        return StandardNormal(latent_size)
    if isinstance(settings, CouplingFlowConfig):
        return CouplingFlow(latent_size, layers=settings.layers, width=settings.width)
    raise ValueError(f"prior {settings.name!r} is not of a vector z")
