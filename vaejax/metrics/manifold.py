"""Fidelity and variety apart: precision, recall, density and coverage of generated pictures.

A picture's ball reaches to its k-th nearest neighbour in its own set. Precision and recall ask
whether a picture of one set lies in a ball of the other: Kynkäänniemi et al., "Improved precision
and recall metric" (NeurIPS 2019), eq. 1 to 3. Density and coverage use balls of real pictures
only, so that a generated outlier has no influence: Naeem et al., "Reliable fidelity and diversity
metrics" (ICML 2020), eq. 3 and 4.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float, Num

from vaejax.metrics.bootstrap import Estimate, mean_estimate
from vaejax.metrics.neighbours import balls_around, nearest


class Manifold(NamedTuple):
    """What each picture contributes; the metrics are the means.

    Attributes:
      precision: a generated picture lies in a real picture's ball.
      recall: a real picture lies in a generated picture's ball.
      density: number of real pictures' balls around a generated picture, divided by k.
      coverage: a real picture's ball has a generated picture in it.
    """

    precision: Bool[np.ndarray, "generated"]
    recall: Bool[np.ndarray, "real"]
    density: Float[np.ndarray, "generated"]
    coverage: Bool[np.ndarray, "real"]

    def estimates(self) -> dict[str, Estimate]:
        """Returns each metric with its bootstrap standard deviation.

        The deviation is that of other pictures among those that are judged, against the same
        balls. With other balls too it is larger: by 1.0 to 2.1 times, measured on CelebA faces.
        """
        return {
            name: mean_estimate(values.astype(np.float64))
            for name, values in self._asdict().items()
        }


def manifold(
    real: Num[Array | np.ndarray, "real feature"],
    generated: Num[Array | np.ndarray, "generated feature"],
    *,
    k: int = 5,
) -> Manifold:
    """Judges each picture of two sets by balls that reach to the `k`-th nearest neighbour.

    The metrics depend on the counts of both sets and on `k`: compare only where these are equal.
    The surface of a ball is outside it, as in the package `prdc`.

    Raises:
      ValueError: a set has `k` pictures or fewer, or a value is not finite.
    """
    radii = nearest(real, real, k, exclude_self=True).distances[:, -1]
    generated_radii = nearest(generated, generated, k, exclude_self=True).distances[:, -1]
    around_generated = balls_around(generated, real, radii)
    return Manifold(
        precision=around_generated > 0,
        recall=balls_around(real, generated, generated_radii) > 0,
        density=around_generated / k,
        coverage=nearest(real, generated, 1).distances[:, 0] < radii,
    )
