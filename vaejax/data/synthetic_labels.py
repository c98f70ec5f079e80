"""The factors of procedural faces among the labels of a data set."""

from collections.abc import Mapping
from typing import Literal

import numpy as np
from jaxtyping import Float32, Shaped

from vaejax.data.synthetic.factors import FACTORS
from vaejax.errors import UserError

# The factors that change their sign in a mirror image; the others stay as they are.
SIDED = ("yaw", "gaze", "light", "shift_x", "roll")


def factor_matrix(
    labels: Mapping[str, Shaped[np.ndarray, "picture ..."]],
) -> tuple[Float32[np.ndarray, "picture factor"], dict[str, Literal["categorical", "continuous"]]]:
    """Stacks the factors among the labels of a split as a matrix, for metrics of what is known.

    A categorical factor is the number of the category. A hue is a continuous factor although 0 and
    1 are the same colour; metrics that assume an order underrate it.

    Args:
      labels: labels of procedural faces by name, as in `Split.labels` or from `draw_factors`.

    Returns:
      A column for each factor of `FACTORS`, and the kinds of the factors by name, in this order.

    Raises:
      UserError: the pictures are not procedural faces, so that a factor is missing.
    """
    for factor in FACTORS:
        if factor.name not in labels:
            raise UserError(
                f"the data has no label {factor.name!r}: factors are known only of the faces of "
                "config.data.source=synthetic"
            )
    columns = [labels[factor.name].astype(np.float32) for factor in FACTORS]
    return np.stack(columns, axis=1), {factor.name: factor.kind for factor in FACTORS}
