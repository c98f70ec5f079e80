"""The parts of a ladder's recipe, and what is set when one is taken out."""

import math
from typing import Any

from vaejax.config import Config


def variants(config: Config) -> dict[str, dict[str, Any]]:
    """What is set otherwise when a part is taken out, by the part's name."""
    return {
        "nothing": {},
        "softplus": {"ladder.spread": "exp"},
        "block skips": {"ladder.skips": "level"},
        "depth": {"model.blocks": tuple(min(depth, 1) for depth in config.model.blocks)},
        "widths": {"model.widths": _one_width(config), "ladder.hidden": ()},
        "guard": {"optimizer.guard": 0.0},
        "mixture": {"likelihood.name": "logistic"},
        "balance": {"objective.balance": False},
        # With NVAE's rate: at the same one Adamax is slower, which says nothing of either.
        "AdamW": {
            "optimizer.name": "adamax",
            "optimizer.b2": 0.999,
            "optimizer.learning_rate": 1e-2,
        },
    }


def _one_width(config: Config) -> tuple[int, ...]:
    """The same width at every level, at which blocks half as wide inside cost as much."""
    widths, blocks = config.model.widths, config.model.blocks
    share = [depth / 4**level for level, depth in enumerate(blocks)]
    mean = sum(s * width**2 for s, width in zip(share, widths)) / sum(share)
    return (round(math.sqrt(mean)),) * len(widths)
