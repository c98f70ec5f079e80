"""The parts of a ladder's recipe, taken out one at a time."""

import math

from vaejax.config import Config
from vaejax.config.settings import changed


def variants(config: Config) -> dict[str, Config]:
    """Returns the config as it is, and without each of the parts it has, by the part's name."""
    changes = {
        "softplus": {"model.spread": "exp"},
        "block skips": {"model.skips": "level"},
        "depth": {"model.blocks": tuple(min(depth, 1) for depth in config.model.blocks)},
        "widths": {"model.widths": _one_width(config), "model.hidden": ()},
        "guard": {"optimizer.guard": 0.0},
        "mixture": {"likelihood.name": "logistic", "likelihood.scale": "predicted"},
        "balance": {"objective.balance": False},
        # With NVAE's learning rate: at AdamW's, Adamax learns more slowly, and nothing is compared.
        "AdamW": {
            "optimizer.name": "adamax",
            "optimizer.b2": 0.999,
            "optimizer.learning_rate": 1e-2,
        },
    }
    if not config.objective.warmup_steps:
        # The KL terms are balanced only while the weight of their sum grows.
        del changes["balance"]
    parts = {part: changed(config, change) for part, change in changes.items()}
    return {"nothing": config} | {part: cut for part, cut in parts.items() if cut != config}


def _one_width(config: Config) -> tuple[int, ...]:
    """Returns one width for all levels, with which blocks half as wide inside cost as much."""
    widths, blocks = config.model.widths, config.model.blocks
    insides = config.model.hidden or [width / 2 for width in widths]
    share = [depth / 4**level for level, depth in enumerate(blocks)]
    # Multiply-adds of a block at one position: 1 x 1 convolutions in and out, two 3 x 3 between.
    costs = [2 * width * inside + 18 * inside**2 for width, inside in zip(widths, insides)]
    mean = sum(s * cost for s, cost in zip(share, costs)) / sum(share)
    return (round(math.sqrt(mean / (2 / 2 + 18 / 4))),) * len(widths)
