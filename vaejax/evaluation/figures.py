"""A measured number, with all that is needed to judge it."""

import math
from typing import NamedTuple

from vaejax.metrics.bootstrap import Estimate

# What a better model does to a number: "floor" means that it comes closer to that of real faces.
BETTER = ("lower", "higher", "floor")
_HIGHER = ("psnr", "ssim", "ms_ssim", "precision", "recall", "density", "coverage", "faces_found")


def is_higher_better(name: str) -> bool:
    """Whether a higher value of the figure of this name is better; False if the floor is best."""
    return name.startswith(_HIGHER)


class Figure(NamedTuple):
    """A measured number, its floor and its protocol.

    Attributes:
      name: unique name, in snake_case.
      group: heading of the table in which the report shows it.
      label: what readers see.
      estimate: the number and its standard deviation under other draws of the pictures, NaN where
        that was not estimated.
      count: number of measured pictures.
      protocol: how it was measured, in one line.
      better: one of `BETTER`.
      unit: `dB`, `bits/dim`, `%`, or empty.
      floor: the same number for real faces in place of generated ones; None where there is none.
      reference_count: number of the real pictures compared with; None for metrics of single
        pictures.
    """

    name: str
    group: str
    label: str
    estimate: Estimate
    # It hides the method `tuple.count`, which nobody calls.
    count: int  # type: ignore[assignment]
    protocol: str
    better: str = "lower"
    unit: str = ""
    floor: Estimate | None = None
    reference_count: int | None = None

    def as_json(self) -> dict:
        """Returns the figure as a flat dict; NaN stands for what there is not."""
        floor = self.floor or Estimate(math.nan, math.nan)
        return {
            "name": self.name,
            "group": self.group,
            "label": self.label,
            "value": self.estimate.value,
            "spread": self.estimate.std,
            "floor": floor.value,
            "floor_spread": floor.std,
            "count": self.count,
            "reference_count": self.reference_count,
            "unit": self.unit,
            "better": self.better,
            "protocol": self.protocol,
        }

    def line(self) -> str:
        """Formats the figure for the terminal: name, value, spread, floor and counts."""
        parts = [f"{self.name:44s} {_shown(self.estimate)}"]
        if self.floor:
            parts.append(f"real faces {_shown(self.floor)}")
        against = f" against {self.reference_count:,}" if self.reference_count else ""
        parts.append(f"{self.count:,} pictures{against}")
        return "  ".join(parts)


def _shown(estimate: Estimate) -> str:
    spread = "" if math.isnan(estimate.std) else f" ± {estimate.std:.2g}"
    return f"{estimate.value:.4f}{spread}"
