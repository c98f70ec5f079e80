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


def build_prior(name: str, latent_size: int, layers: int, width: int) -> nn.Module:
    """The jointly trained prior of that name; `layers` and `width` are the flow's.

    Raises:
      ValueError: the name is neither standard_normal nor coupling_flow.
    """
    if name == "standard_normal":
        return StandardNormal(latent_size)
    if name == "coupling_flow":
        return CouplingFlow(latent_size, layers=layers, width=width)
    raise ValueError(f"prior {name!r} is neither 'standard_normal' nor 'coupling_flow'")
