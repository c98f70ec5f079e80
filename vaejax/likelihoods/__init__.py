"""Likelihoods p(x given z) of 8-bit pictures; each sums to one over the levels of every value."""

from collections.abc import Callable

from vaejax.config import Config
from vaejax.likelihoods.bernoulli import Bernoulli
from vaejax.likelihoods.gaussian import DiscretizedGaussian
from vaejax.likelihoods.logistic import DiscretizedLogistic
from vaejax.likelihoods.mixture import MixtureOfLogistics, MixturePixels
from vaejax.likelihoods.values import (
    LEVEL,
    MAX_LOG_SCALE,
    MIN_LOG_SCALE,
    Images,
    Likelihood,
    Pixels,
    Values,
    bound_log_scale,
    to_levels,
    to_picture,
    to_unit,
)

__all__ = [
    "LEVEL",
    "MAX_LOG_SCALE",
    "MIN_LOG_SCALE",
    "Bernoulli",
    "DiscretizedGaussian",
    "DiscretizedLogistic",
    "Images",
    "Likelihood",
    "MixtureOfLogistics",
    "MixturePixels",
    "Pixels",
    "Values",
    "bound_log_scale",
    "build_likelihood",
    "to_levels",
    "to_picture",
    "to_unit",
]


def build_likelihood(config: Config) -> Likelihood:
    """Returns the likelihood that `config.likelihood` describes."""
    build: dict[str, Callable[[], Likelihood]] = {
        "logistic": lambda: DiscretizedLogistic(config.likelihood.bits),
        "gaussian": DiscretizedGaussian,
        "bernoulli": Bernoulli,
        "mixture": lambda: MixtureOfLogistics(config.data.channels, config.likelihood.bits),
    }
    return build[config.likelihood.name]()
