"""Charts of a run for its report: training, and how much each part of z tells."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vaejax.tasks.vae.evidence import Sums, per_factor

_ELBO = "elbo_bits_per_dim"
_LINES = {"train": "training", "valid": "validation"}
# More points than this cannot be told apart in a chart.
_POINTS = 300


def training_curves(workdir: Path) -> dict[str, dict[str, Any]]:
    """Returns the chart of the ELBO during training from the run's `metrics.jsonl`.

    It is empty if the file is missing. Lines that are no JSON, such as one whose writing was
    interrupted, are left out.
    """
    points: dict[str, dict[int, float]] = {split: {} for split in _LINES}
    try:
        lines = (workdir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    for line in lines:
        try:
            values = json.loads(line)
            points[values["split"]][values["step"]] = values[_ELBO]
        except (ValueError, KeyError, TypeError):
            continue
    steps = sorted(set().union(*points.values()))
    if not steps:
        return {}
    validated = points["valid"]
    kept = [
        step
        for number, step in enumerate(steps)
        if step in validated or number % (1 + len(steps) // _POINTS) == 0
    ]
    return {
        "training_elbo": {
            "x": kept,
            "x_label": "updates",
            "y_label": "ELBO, bits/dim",
            "lines": {
                shown: [points[split].get(step) for step in kept]
                for split, shown in _LINES.items()
                if points[split]
            },
        }
    }


def latent_curves(sums: Sums, resolutions: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Returns the chart of the information in each group, or in each dimension or channel of z.

    Args:
      sums: sums over the evaluated pictures.
      resolutions: the resolution of each group of a ladder, coarsest first; else empty.
    """
    ((name, values),) = per_factor(sums).items()
    if not resolutions:
        shown, part = sorted(values, reverse=True), name.removeprefix("information_per_")
        return {
            name: {
                "title": f"Information in each {part} of z",
                "note": f"Mutual information with the picture, the largest first. A {part} near "
                "0 is not used.",
                "x": list(range(1, len(shown) + 1)),
                "x_label": f"{part} of z",
                "y_label": "nats",
                "lines": {"information": shown},
            }
        }
    so_far: Counter[str] = Counter()
    groups = []
    for resolution in resolutions:
        so_far[resolution] += 1
        groups.append(f"{resolution}, group {so_far[resolution]}")
    lines = {"KL": list(values)}
    return {"kl_by_group": {"x": groups, "x_label": "group", "y_label": "KL, nats", "lines": lines}}
