"""The folders in which pictures lie, as classes of the pictures."""

import posixpath
from collections.abc import Iterable

import numpy as np
from jaxtyping import Shaped

# More folders than these are no classes, but a way to store many files.
_MOST_CLASSES = 40


def folders_of(names: Iterable[str]) -> Shaped[np.ndarray, " picture"]:
    """Returns the folder of each picture, from its name with forward slashes; `.` for none."""
    return np.array([posixpath.dirname(name) or "." for name in names], np.str_)


def classes(folders: Shaped[np.ndarray, " picture"]) -> list[str]:
    """Returns the names of the folders, sorted.

    It is empty if all pictures lie in one folder, or if there are too many folders to be classes.
    """
    found = np.unique(folders).tolist()
    return found if 1 < len(found) <= _MOST_CLASSES else []
