"""How the evaluation of a model computes the density of a fitted prior."""

from collections.abc import Callable
from typing import NamedTuple

from jaxtyping import Array, Float, Key

from vaejax.priors.fitted import FittedPrior
from vaejax.priors.flow_matching import ODE_STEPS, PROBES, FlowMatching

EXACT_DENSITY = "exact"

LogProb = Callable[[Float[Array, "batch latent"], Key[Array, "batch"]], Float[Array, "batch"]]


class Density(NamedTuple):
    """The log-density of a prior.

    Attributes:
      log_prob: computes it in nats from codes and one key for each.
      protocol: `EXACT_DENSITY`, or how it is estimated.
    """

    log_prob: LogProb
    protocol: str

    @property
    def is_exact(self) -> bool:
        """Whether nothing is estimated, and the keys are not used."""
        return self.protocol == EXACT_DENSITY


def density_of(prior: FittedPrior) -> Density:
    """Returns the exact log-density of a prior, or for a flow an unbiased estimate.

    The exact density of a flow costs as much as sampling one code per latent dimension.
    """
    if isinstance(prior, FlowMatching):
        return Density(
            prior.estimate_log_prob,
            f"unbiased estimate of log p(z): Hutchinson's, {PROBES} random sign vectors for each "
            f"code, {ODE_STEPS} Runge-Kutta steps",
        )
    return Density(lambda z, keys: prior.log_prob(z), EXACT_DENSITY)
