"""Detects training that has diverged although every number is finite."""

import math
from collections.abc import Mapping

from vaejax.config import Config, OptimizerConfig

# Updates before which an untrained network may cost a little more than raw pixels, in bits/dim.
_YOUNG, _SLACK = 200, 1.0
# Where the likelihood's scale is not learned, good training may cost more than raw pixels too, as
# may any before its warm-up is over. There so many times the lowest loss are too much.
_TIMES = 2.0


def explain_divergence(config: Config, step: int, values: Mapping, lowest: float) -> str:
    """What to say of a window of updates that ends at `step`; empty where all is well.

    Training has diverged where it costs more than raw pixels, and either twice its own lowest loss
    or, where the likelihood's scale is learned and the learning rate's warm-up is over, anything at
    all.

    Args:
      config: config of the run.
      step: updates so far.
      values: training metrics of the window.
      lowest: the lowest loss of the windows before, in bits/dim; infinite before the first.
    """
    raw = float(config.likelihood.bits)
    limit = max(raw, _TIMES * lowest)
    warmup = min(config.optimizer.warmup_steps, config.train.steps)
    if config.likelihood.learns_scale and step >= warmup:
        # Whoever was rolled back and ends no better than raw pixels has not recovered.
        recovered = step < config.train.steps or not values.get("rollbacks")
        limit = min(limit, raw + (_SLACK if step <= _YOUNG and recovered else 0.0))
    # What is no number at all is skipped before it gets here, and counted elsewhere.
    bits = loss_bits(config, values)
    if not bits > limit:
        return ""
    return (
        f"training has diverged: it costs {bits:,.2f} bits/dim, more than the {raw:.0f} of raw "
        "pixels"
    )


def loss_bits(config: Config, values: Mapping) -> float:
    """The loss of training metrics in bits/dim, the KL term weighed no more than in the ELBO.

    With a small beta nothing keeps the KL small; with a large one its weight says nothing of how
    well pictures are described.
    """
    nats = min(values["beta"], 1.0) * values["kl_nats"] - values["log_likelihood_nats"]
    return nats / (math.prod(config.data.shape) * math.log(2.0))


def advice(settings: OptimizerConfig) -> str:
    """What to change where training diverges again and again."""
    words = f"lower config.optimizer.learning_rate={settings.learning_rate:g}"
    if not settings.clip_norm:
        words += ", or clip gradients with config.optimizer.clip_norm=1"
    return words
