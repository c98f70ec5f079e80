"""The attributes of a data set: their names, and whether each picture has them."""

import numpy as np

from vaejax.data import Dataset
from vaejax.errors import UserError

LABEL = "attributes"


def attribute_names(fingerprint: dict, count: int) -> list[str]:
    """Returns the names of `count` attributes; numbers from 1 on if the data has no names.

    Args:
      fingerprint: the fingerprint of the data.
      count: number of attributes.
    """
    names = list(fingerprint.get("attribute_names") or ())
    return names if len(names) == count else [f"attribute {i + 1}" for i in range(count)]


def check_labels(dataset: Dataset, count: int) -> None:
    """Checks that each picture of a data set has the label 0 or 1 for each of `count` attributes.

    Raises:
      UserError: there are no attributes, another number of them, or other values than 0 and 1.
    """
    for name, split in dataset.splits.items():
        if LABEL not in split.labels:
            known = ", ".join(sorted(split.labels)) or "none"
            raise UserError(
                "config.model.name='attributes' learns the label 'attributes' of the pictures, and "
                f"the data has no such label (it has: {known}); name CelebA, or an array with it"
            )
        labels = split.labels[LABEL]
        if labels.ndim != 2 or labels.shape[1] != count:
            raise UserError(
                f"config.model.attributes={count} is not the number of attributes of the data, "
                f"whose label 'attributes' has rows of shape {labels.shape[1:]}; set it to theirs"
            )
        if labels.dtype.kind not in "biuf" or not np.all((labels == 0) | (labels == 1)):
            raise UserError(
                f"the label 'attributes' of the split {name!r} has other values than 0 and 1; "
                "write 1 where a picture has the attribute, and 0 where it has not"
            )
