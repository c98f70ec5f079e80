"""Faces found: in which share of the pictures does a detector find a face, and where?"""

import math

from vaejax.evaluation.metric import Metric, Part, against_real
from vaejax.evaluation.observing import Rows
from vaejax.evaluation.picture_sets import INTERPOLATIONS, SAMPLES
from vaejax.features import Extractor
from vaejax.features.faces import THRESHOLD, has_face, has_plausible_face, landmark_distance
from vaejax.metrics.bootstrap import Estimate, mean_estimate

# With fewer real faces, no distribution of landmarks is compared.
_LEAST = 100


def faces(name: str, detector: Extractor) -> Metric:
    """Returns the metric; `detector` is what `features.faces.load_face_detector` returns."""

    def compare(rows: Rows, real: Rows) -> dict[str, Estimate]:
        distance = math.nan
        found = has_face(rows.kept)
        if has_face(real.kept).sum() >= _LEAST:
            found = has_plausible_face(rows.kept, real.kept)
            if has_face(rows.kept).sum() >= _LEAST:
                distance = landmark_distance(rows.kept, real.kept)
        return {
            "faces_found": mean_estimate(100 * found),
            "landmark_distance": Estimate(distance, math.nan),
        }

    return against_real(
        name,
        detector,
        {
            "faces_found": Part("Faces found, with plausible landmarks", "higher", "%"),
            "landmark_distance": Part("Distance of landmarks"),
        },
        compare,
        f"{detector.name}, score above {THRESHOLD:g} and landmarks where 99% of real faces have "
        "them; distance of the landmarks of faces that are found; spread: bootstrap",
        measured=(SAMPLES, INTERPOLATIONS),
    )
