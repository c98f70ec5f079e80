"""Training that has diverged although every number is finite."""

import math
from collections.abc import Mapping

from vaejax.config import Config

# Updates before which an untrained network may cost a little more than raw pixels, in bits/dim.
_YOUNG, _SLACK = 200, 1.0
# Where the likelihood's scale is not learned, good training may cost more than raw pixels too, as
# may any before its warm-up is over. There so many times the lowest loss are too much.
_TIMES = 2.0


class Divergence:
    """Compares the loss of training with what raw pixels cost, and with its own best."""

    def __init__(self, config: Config):
        """Starts with no loss seen."""
        self._config = config
        self._lowest = math.inf

    def explain(self, step: int, values: Mapping) -> str:
        """What to say of a window of updates that ends at `step`; empty where all is well.

        It has where it costs more than raw pixels, and either twice its own lowest or, where the
        likelihood's scale is learned and the learning rate's warm-up is over, anything at all.

        Args:
          step: updates so far.
          values: training metrics of the window.
        """
        bits, raw = self._bits_per_dim(values), float(self._config.likelihood.bits)
        limit = max(raw, _TIMES * self._lowest)
        self._lowest = min(self._lowest, bits)
        warmup = min(self._config.optimizer.warmup_steps, self._config.train.steps)
        if self._calibrated() and step >= warmup:
            # Whoever was rolled back and ends no better than raw pixels has not recovered.
            recovered = step < self._config.train.steps or not values.get("rollbacks")
            limit = min(limit, raw + (_SLACK if step <= _YOUNG and recovered else 0.0))
        # What is no number at all is skipped before it gets here, and counted elsewhere.
        if not bits > limit:
            return ""
        return (
            f"training has diverged: it costs {bits:,.1f} bits/dim, more than the {raw:.0f} of raw "
            "pixels"
        )

    def _bits_per_dim(self, values: Mapping) -> float:
        """The loss, with a KL term that weighs no more than in the ELBO.

        With a small beta nothing keeps the KL small; with a large one its weight says nothing of
        how well pictures are described.
        """
        nats = min(values["beta"], 1.0) * values["kl_nats"] - values["log_likelihood_nats"]
        return nats / (math.prod(self._config.data.shape) * math.log(2.0))

    def _calibrated(self) -> bool:
        """Whether the likelihood can always describe noise as well as raw pixels do."""
        likelihood = self._config.likelihood
        return likelihood.scale != "fixed" or likelihood.name == "mixture"
