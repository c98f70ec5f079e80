"""Attributes: does each of them, such as glasses or a smile, appear as often as in real faces?"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from vaejax.evaluation.metric import Metric, Part, RowsOfSets, against_real
from vaejax.evaluation.observing import Rows
from vaejax.evaluation.picture_sets import INTERPOLATIONS, REAL, RECONSTRUCTIONS, SAMPLES
from vaejax.features import Extractor
from vaejax.metrics.bootstrap import Estimate, resampled_means

# The first part of the figures' names, the chart's name, and the name of a line in it.
PART, CHART, REAL_FACES = "attribute_gap", "attributes", "real held-out faces"
_MEASURED = (SAMPLES, RECONSTRUCTIONS, INTERPOLATIONS)

Shares = Float[np.ndarray, "picture attribute"]


def attributes(name: str, predictor: Extractor, names: Sequence[str]) -> Metric:
    """Returns the metric.

    Real faces are predicted by the same network instead of taken by their labels, so what it
    overlooks is missing in both. Predictions count whole, not by their probability: blurred
    pictures have no glasses, and a probability of 5% for each of them would hide that.

    Args:
      name: the name by which `--metrics` chooses it.
      predictor: its rows are logits; above 0, a picture has the attribute.
      names: names of the attributes.
    """

    def compare(rows: Rows, real: Rows) -> dict[str, Estimate]:
        ours, theirs = _having(rows), _having(real)
        gap = np.abs(ours.mean(axis=0) - theirs.mean(axis=0)).mean()
        drawn = np.abs(resampled_means(ours) - resampled_means(theirs, seed=1)).mean(axis=1)
        return {PART: Estimate(float(gap), float(drawn.std()))}

    def curves(rows: RowsOfSets) -> Mapping[str, dict]:
        shown = {REAL_FACES: REAL} | {one.replace("_", " "): one for one in _MEASURED}
        having = {label: _having(rows[one]) for label, one in shown.items() if one in rows}
        if len(having) < 2:
            return {}
        shares = {label: one.mean(axis=0) for label, one in having.items()}
        spreads = {label: one.std(axis=0) / np.sqrt(len(one)) for label, one in having.items()}
        # What is missing most stands first.
        order = np.argsort(shares[list(shares)[1]] - shares[REAL_FACES], kind="stable")
        return {
            CHART: {
                "title": "Attributes",
                "note": "Share of the pictures that the network takes to have each attribute. "
                "Those that are missing most stand first.",
                "x": [names[i].replace("_", " ") for i in order],
                "x_label": "attribute",
                "y_label": "share, %",
                "lines": {label: one[order].tolist() for label, one in shares.items()},
                "spreads": {label: one[order].tolist() for label, one in spreads.items()},
            }
        }

    metric = against_real(
        name,
        predictor,
        {PART: Part("Mean difference of the attributes' shares", "lower", "%")},
        compare,
        f"share of pictures predicted to have each of {len(names)} attributes, by "
        f"{predictor.name}; mean absolute difference; spread: bootstrap",
        measured=_MEASURED,
    )
    return metric._replace(curves=curves)


def _having(rows: Rows) -> Shares:
    """Returns 100 for each picture and attribute that it has, else 0: percents are means."""
    return 100.0 * (rows.kept > 0)
