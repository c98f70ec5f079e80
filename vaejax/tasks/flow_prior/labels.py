"""The labels of a data set on which a flow prior can be conditioned."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, Shaped

from vaejax.data import Dataset
from vaejax.data.folders import classes, folders_of
from vaejax.data.sources.folder import split_folders
from vaejax.data.synthetic_labels import SIDED
from vaejax.errors import UserError
from vaejax.priors.labels import choices
from vaejax.tasks.attributes.labels import LABEL, attribute_names

# The name of the labels of the mirror images of the training pictures.
MIRRORED = "mirrored"
# The sources of whose labels it is known which have a side.
_SIDES_KNOWN = ("synthetic", "celeba")

Values = Float32[np.ndarray, "picture label"]


def label_columns(dataset: Dataset) -> dict[str, dict[str, Shaped[np.ndarray, " picture"]]]:
    """Returns the labels that are one number for each picture, by name and then by split.

    They are the attributes by their names (1 if a picture has one, else 0), the folders by theirs
    (1 for the pictures in a folder, else 0; folders that are splits do not count), and every other
    numeric label with one number for each picture. A category is the number that the data gives it.
    """
    found: dict[str, dict[str, np.ndarray]] = {}
    of_pictures = _folders(dataset)
    for split, pictures in dataset.splits.items():
        columns = {name: of for name, of in pictures.labels.items() if of.ndim == 1}
        attributes = pictures.labels.get(LABEL)
        if attributes is not None and attributes.ndim == 2:
            names = attribute_names(dataset.fingerprint, attributes.shape[1])
            columns |= dict(zip(names, attributes.T, strict=True))
        folders = of_pictures[split]
        columns |= {name: folders == name for name in classes(of_pictures["train"])}
        for name, column in columns.items():
            if column.dtype.kind in "biuf":
                found.setdefault(name, {})[split] = column
    return {name: of for name, of in found.items() if of.keys() == dataset.splits.keys()}


def label_values(dataset: Dataset, names: Sequence[str]) -> dict[str, Values]:
    """Returns the values of the named labels, by split, and as `mirrored` those of mirror images.

    In the mirror images of the training pictures, a factor of procedural faces that has a side,
    such as the yaw, changes its sign. No attribute of CelebA has a side. It is not known of other
    data which labels have one: they stay as they are.

    Args:
      dataset: the data set.
      names: names of labels, as `label_columns` returns them.

    Raises:
      UserError: there is no such label, a value is not finite, or all training pictures have the
        same value.
    """
    if not names:
        return {}
    columns = label_columns(dataset)
    for name in names:
        if name not in columns:
            raise UserError(
                f"config.flow.labels names {name!r}, and the data has no such label; "
                f"{choices(name, columns)}"
            )
        if not all(np.all(np.isfinite(column)) for column in columns[name].values()):
            raise UserError(
                f"config.flow.labels names {name!r}, some of whose values are not finite; correct "
                "the data, or leave it out"
            )
        if np.ptp(columns[name]["train"].astype(np.float32)) == 0:
            raise UserError(
                f"config.flow.labels names {name!r}, which is the same for all training pictures; "
                "leave it out"
            )
    values = {
        split: np.stack([columns[name][split] for name in names], axis=1).astype(np.float32)
        for split in dataset.splits
    }
    is_procedural = dataset.fingerprint.get("source") == "synthetic"
    signs = [-1 if is_procedural and name in SIDED else 1 for name in names]
    return {**values, MIRRORED: values["train"] * np.array(signs, np.float32)}


def sides_are_known(dataset: Dataset) -> bool:
    """Whether it is known which labels of this data change in mirror images."""
    return dataset.fingerprint.get("source") in _SIDES_KNOWN


def _folders(dataset: Dataset) -> dict[str, Shaped[np.ndarray, " picture"]]:
    """Returns the folder of each picture by split; a folder that is the split is left out."""
    names = {split: pictures.names.tolist() for split, pictures in dataset.splits.items()}
    if split_folders([name for of_split in names.values() for name in of_split]):
        names = {split: [name.partition("/")[2] for name in of] for split, of in names.items()}
    return {split: folders_of(of) for split, of in names.items()}
