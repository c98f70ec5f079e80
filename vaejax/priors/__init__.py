"""Priors p(z) over latent vectors.

`StandardNormal` and `CouplingFlow` are Linen modules, part of the model and trained with it.
`Gaussian`, `Mixture` and `FlowMatching` are fitted afterwards, to the codes of the training
pictures. `fitted.py` fits the first two by name, and saves and loads all three;
`tasks.flow_prior` trains `FlowMatching`. `DiagonalGaussian` only normalises its maps.

Every prior has `log_prob(z)`, in nats. Priors that are part of the model also have `to_noise(z)`
and its inverse `from_noise(noise)`, which map between codes and N(0, I). Fitted priors have
`noise(key, count, temperature=1.0)`, whose rows do not depend on `count`; `from_noise(noise)`,
which maps any rows of it to codes, so that many codes can be drawn in batches; and

    sample(key, count, temperature=1.0) -> Float[Array, "count latent"]

which does both. `temperature` scales the standard deviation of the base noise. A `FlowMatching`
that has learned labels of the pictures is the unconditional prior; `given(labels)` returns the one
that is conditioned on some of them.
"""

import flax.linen as nn

from vaejax.config import CouplingFlowConfig, PriorConfig, StandardNormalConfig
from vaejax.priors.coupling_flow import CouplingFlow
from vaejax.priors.diagonal_gaussian import DiagonalGaussian
from vaejax.priors.fitted import fit_prior, load_prior, save_prior
from vaejax.priors.flow_matching import FlowMatching
from vaejax.priors.gaussian import Gaussian, fit_gaussian
from vaejax.priors.mixture import Mixture, fit_mixture
from vaejax.priors.standard_normal import StandardNormal

__all__ = [
    "CouplingFlow",
    "DiagonalGaussian",
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
    """Builds the prior of a flat z that is trained with the model.

    Args:
      settings: settings of the prior, `config.prior`.
      latent_size: number of dimensions of z.

    Raises:
      ValueError: the settings are those of a ladder, whose groups' priors are part of its blocks.
    """
    if isinstance(settings, StandardNormalConfig):
        return StandardNormal(latent_size)
    if isinstance(settings, CouplingFlowConfig):
        return CouplingFlow(latent_size, layers=settings.layers, width=settings.width)
    raise ValueError(f"prior {settings.name!r} is not a prior of a flat z")
