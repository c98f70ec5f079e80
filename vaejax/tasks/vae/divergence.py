"""Detects training that has diverged although all of its numbers are finite."""

import math
from collections.abc import Mapping

from vaejax.config import Config, OptimizerConfig

# In the first 200 updates the loss may exceed that of raw pixels by 1 bit/dim.
_YOUNG, _SLACK = 200, 1.0
# If the likelihood's scale is not learned, or the warm-up is not over, the loss of sound training
# may also exceed that of raw pixels. The limit is then this multiple of the lowest loss so far.
_TIMES = 2.0


def explain_divergence(config: Config, step: int, values: Mapping, lowest: float) -> str:
    """Explains why training has diverged in the window of updates that ends at `step`.

    Training has diverged if its loss in bits/dim exceeds that of raw pixels (`likelihood.bits`) and
    also exceeds twice the lowest loss so far. If the likelihood's scale is learned and the learning
    rate's warm-up is over, the first condition suffices; in the first 200 updates the loss may
    then exceed that of raw pixels by 1 bit/dim.

    Args:
      config: config of the run.
      step: updates so far.
      values: training metrics of the window.
      lowest: the lowest `loss_bits` of earlier windows, in bits/dim; infinite before the first.

    Returns:
      A message to the user; empty if training has not diverged.
    """
    raw = float(config.likelihood.bits)
    limit = max(raw, _TIMES * lowest)
    warmup = min(config.optimizer.warmup_steps, config.train.steps)
    if config.likelihood.learns_scale and step >= warmup:
        # A run that was rolled back and ends no better than raw pixels has not recovered.
        recovered = step < config.train.steps or not values.get("rollbacks")
        limit = min(limit, raw + (_SLACK if step <= _YOUNG and recovered else 0.0))
    # Updates with NaN or infinite values were skipped and counted before, so `bits` is finite.
    bits = loss_bits(config, values)
    if not bits > limit:
        return ""
    return (
        f"training has diverged: its loss is {bits:,.2f} bits/dim, more than the {raw:.0f} of raw "
        "pixels"
    )


def loss_bits(config: Config, values: Mapping) -> float:
    """Computes the training loss in bits/dim, with the KL term weighted by min(beta, 1).

    With beta below 1 the KL may grow large without harm, so it counts only with its weight. With
    beta above 1 the weight does not measure how well the pictures are modelled, so it counts as 1.

    Args:
      config: config of the run.
      values: training metrics; `beta`, `kl_nats` and `log_likelihood_nats` are read.
    """
    nats = min(values["beta"], 1.0) * values["kl_nats"] - values["log_likelihood_nats"]
    return nats / (math.prod(config.data.shape) * math.log(2.0))


def advice(settings: OptimizerConfig) -> str:
    """Returns the settings to change if training diverges after every rollback."""
    words = f"lower config.optimizer.learning_rate={settings.learning_rate:g}"
    if not settings.clip_norm:
        words += ", or clip gradients with config.optimizer.clip_norm=1"
    return words
