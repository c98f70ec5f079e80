"""Measures what codes, reconstructions and samples keep of the factors of procedural faces."""

import math
from collections.abc import Iterable, Mapping

import jax
import numpy as np
from jaxtyping import Float32, Int64, UInt8

from vaejax.data.feed.subsets import random_order
from vaejax.data.synthetic_labels import factor_matrix
from vaejax.errors import UserError
from vaejax.evaluation.figures import Figure
from vaejax.evaluation.picture_sets import RECONSTRUCTIONS, SAMPLES, PictureSet, first
from vaejax.metrics.bootstrap import Estimate
from vaejax.metrics.disentanglement import Kinds, factor_scores
from vaejax.metrics.factor_recovery import factor_recovery
from vaejax.metrics.frechet import thumbnail_features
from vaejax.records.progress import say
from vaejax.tasks.vae.generating import Generator
from vaejax.trained.measurements import Measurement
from vaejax.trained.picture_sets import Measured

# The boosted trees of DCI take minutes for this many pictures.
_MOST = 2_000
# With as many dimensions as a map of latents has, they would take hours.
_MOST_DIMENSIONS = 512
_SEED = 0
_GROUP = "Factors of procedural faces"
_LABELS = {
    "mig": "Mutual information gap (MIG)",
    "dci_disentanglement": "Disentanglement (DCI)",
    "dci_completeness": "Completeness (DCI)",
    "dci_informativeness": "Informativeness (DCI)",
    "sap": "Separated attribute predictability (SAP)",
}


def of_factors(
    generator: Generator, faces: Measured, sets: Mapping[str, PictureSet]
) -> Measurement:
    """Measures disentanglement, and how well factors are rebuilt and covered by samples.

    Args:
      generator: generates the model's pictures and codes.
      faces: the measured faces, which are procedural.
      sets: the sets by name.

    Raises:
      UserError: the faces are not procedural, the code is not one array of at most 512
        dimensions, or scikit-learn is missing.
    """
    rows = faces.rows[:_MOST]
    labels = faces.dataset.splits[faces.split].labels
    factors, kinds = factor_matrix({name: values[rows] for name, values in labels.items()})
    codes = generator.codes(faces.images, rows)
    if not isinstance(codes, np.ndarray):
        raise UserError("the metric 'factors' needs one flat code, and a ladder has groups")
    if codes.shape[1] > _MOST_DIMENSIONS:
        raise UserError(
            f"the metric 'factors' takes codes of at most {_MOST_DIMENSIONS} dimensions, and this "
            f"model's have {codes.shape[1]:,}; leave it out of --metrics"
        )
    say(f"fitting {factors.shape[1]} factors to {codes.shape[1]} latents, which takes minutes")
    scores = factor_scores(codes, factors, kinds, _SEED)
    protocol = (
        f"posterior means of {len(rows):,} faces; MIG with 20 bins; DCI by gradient-boosted trees, "
        "SAP by linear predictors, both fitted to two thirds of the faces"
    )
    figures = [
        Figure(name, _GROUP, label, Estimate(scores[name], math.nan), len(rows), protocol, "higher")
        for name, label in _LABELS.items()
    ]
    curves = _recovery(faces, rows, factors, kinds, sets) if SAMPLES in sets else {}
    return Measurement(scores, figures, curves)


def _recovery(
    faces: Measured,
    rows: Int64[np.ndarray, "row"],
    factors: Float32[np.ndarray, "row factor"],
    kinds: Kinds,
    sets: Mapping[str, PictureSet],
) -> dict[str, dict]:
    """Returns charts of how well factors are read from reconstructions, and spread in samples."""
    train = faces.dataset.splits["train"]
    chosen = random_order(len(train.images), _MOST)
    train_factors, _ = factor_matrix({name: of[chosen] for name, of in train.labels.items()})
    found = factor_recovery(
        _thumbnails([train.images[chosen]]),
        train_factors,
        _thumbnails([faces.images[rows]]),
        factors,
        _thumbnails(first(sets[RECONSTRUCTIONS].batches(), len(rows))),
        _thumbnails(first(sets[SAMPLES].batches(), min(_MOST, sets[SAMPLES].count))),
        kinds,
        _SEED,
    )
    shown = {
        "factors_rebuilt_by_group": (
            "Factors that can be read from pictures",
            "R² or accuracy",
            {"constant": "no picture", "real": "real faces", "reconstructed": "reconstructions"},
        ),
        "factors_covered_by_group": (
            "Distance of the factors' distributions",
            "Kolmogorov-Smirnov or total variation",
            {"real_distance": "real faces", "sample_distance": "samples"},
        ),
    }
    return {
        name: {
            "title": title,
            "note": "Read from 16 x 16 thumbnails by a predictor that was fitted to real faces. "
            "Where it reads little from real faces, the others tell nothing.",
            "x": list(found),
            "x_label": "factor",
            "y_label": label,
            "lines": {line: [of[key] for of in found.values()] for key, line in lines.items()},
        }
        for name, (title, label, lines) in shown.items()
    }


def _thumbnails(
    batches: Iterable[UInt8[np.ndarray, "batch height width channel"]],
) -> Float32[np.ndarray, "picture feature"]:
    rows = [jax.device_get(thumbnail_features(np.asarray(batch), 16)) for batch in batches]
    return np.concatenate(rows)
