"""Power spectrum: is detail missing, or too much? It needs no network."""

from collections.abc import Mapping

import numpy as np

from vaejax.evaluation.metric import Metric, Part, RowsOfSets, against_real
from vaejax.evaluation.observing import Rows
from vaejax.evaluation.picture_sets import FLOOR, INTERPOLATIONS, REAL, RECONSTRUCTIONS, SAMPLES
from vaejax.features import Extractor
from vaejax.metrics import spectrum as mathematics
from vaejax.metrics.bootstrap import Estimate, resampled_means

# Structures count as fine from this frequency on, in cycles per picture height.
FINE = 8.0
_MEASURED = (SAMPLES, RECONSTRUCTIONS, INTERPOLATIONS)

band_powers = Extractor(
    "power spectrum",
    {"window": "Hann", "bands": "half octaves of cycles per picture height", "version": 1},
    {},
    lambda params, pictures: mathematics.band_powers(pictures),
)


def spectrum(name: str, height: int, width: int) -> Metric:
    """Returns the metric for pictures of `height` x `width` pixels."""
    bands = mathematics.bands(height, width)
    # Small pictures have no band that fine.
    fine = min(FINE, float(bands.low[-1]))

    def compare(rows: Rows, real: Rows) -> dict[str, Estimate]:
        gap = mathematics.compare(rows.moments.mean(), real.moments.mean(), bands, fine=fine)
        drawn = mathematics.compare(
            resampled_means(rows.kept), resampled_means(real.kept, seed=1), bands, fine=fine
        )
        return {
            "missing_detail": Estimate(100 * float(gap.missing), 100 * float(drawn.missing.std())),
            "spectrum_distance": Estimate(float(gap.distance), float(drawn.distance.std())),
        }

    def curves(rows: RowsOfSets) -> Mapping[str, dict]:
        shown = {"real held-out faces": REAL, "real faces of the floor": FLOOR}
        shown |= {one.replace("_", " "): one for one in _MEASURED}
        lines = {
            label: np.log10(np.maximum(rows[one].moments.mean() / bands.share, 1e-12)).tolist()
            for label, one in shown.items()
            if one in rows
        }
        return {
            "spectrum": {
                "x": bands.low.tolist(),
                "x_label": "cycles per picture height",
                "y_label": "log10 power",
                "lines": lines,
            }
        }

    metric = against_real(
        name,
        band_powers,
        {
            "missing_detail": Part(f"Energy above {fine:g} cycles that is missing", "floor", "%"),
            "spectrum_distance": Part("Distance of power spectra (RMS of log10 ratios)"),
        },
        compare,
        "radially averaged power spectrum under a Hann window, in half octaves; spread: bootstrap",
        measured=_MEASURED,
    )
    return metric._replace(curves=curves)
