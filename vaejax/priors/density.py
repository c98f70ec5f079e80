"""How the evaluation of a model computes the density of a fitted prior."""

from collections.abc import Callable
from typing import NamedTuple

from jaxtyping import Array, Float, Key

from vaejax.priors.fitted import FittedPrior
from vaejax.priors.flow_matching import ODE_STEPS, PROBES, FlowMatching

LogProb = Callable[[Float[Array, "batch latent"], Key[Array, "batch"]], Float[Array, "batch"]]


class Density(NamedTuple):
    """The log-density of a prior.

    Attributes:
      log_prob: computes it in nats from codes and one key for each.
      estimate: how it is estimated without bias; empty if it is exact.
    """

    log_prob: LogProb
    estimate: str = ""


def density_of(prior: FittedPrior) -> Density:
    """Returns the exact log-density of a prior, or for a flow an unbiased estimate.

    The exact density of a flow costs as much as sampling one code per latent dimension.
    """
    if isinstance(prior, FlowMatching):
        return Density(
            prior.estimate_log_prob,
            f"log p(z) by Hutchinson's unbiased estimate, {PROBES} vectors of random signs a code, "
            f"{ODE_STEPS} Runge-Kutta steps",
        )
    return Density(lambda z, keys: prior.log_prob(z))
