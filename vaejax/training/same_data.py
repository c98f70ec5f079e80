"""Checks that the data is what a run was trained on, and names what changed."""

import gzip
import json
from pathlib import Path
from typing import Any

from vaejax.data import Dataset
from vaejax.errors import UserError
from vaejax.files.atomic import replacing

# The file of the work directory that has the names of the pictures, by split.
FILE = "trained_on.json.gz"
# How many names a message lists for each kind of change.
_SHOWN = 5
# Keys of a fingerprint that version 0.1 did not write.
_NEWER = ("labels",)


def remember_names(workdir: Path, dataset: Dataset) -> None:
    """Writes the names of the pictures, from which `check_same_data` tells what changed."""
    text = json.dumps(_names(dataset))
    content = gzip.compress(text.encode("utf-8", "surrogatepass"), mtime=0)
    file = workdir / FILE
    if not file.is_file() or file.read_bytes() != content:
        with replacing(file) as temporary:
            temporary.write_bytes(content)


def check_same_data(workdir: Path, trained_on: dict, dataset: Dataset, remedy: str) -> None:
    """Checks that a data set has the fingerprint of the data that a run was trained on.

    Args:
      workdir: the run's directory.
      trained_on: the fingerprint in the run's checkpoint.
      dataset: the data as it is now.
      remedy: what the user can do, the end of the error message.

    Raises:
      UserError: they differ; the message counts the pictures and names those that are new or gone.
    """
    changed = [
        key
        for key in sorted(trained_on.keys() | dataset.fingerprint.keys())
        if _differ(trained_on.get(key), dataset.fingerprint.get(key))
    ]
    if not changed:
        return
    before = sum(split["count"] for split in trained_on["splits"].values())
    now = sum(len(split.images) for split in dataset.splits.values())
    what = f"{', '.join(changed)} differ"
    if before != now:
        what = f"{now} pictures, {before} were trained on"
    what += _came_and_went(workdir, dataset)
    raise UserError(f"the data is not what {workdir} was trained on: {what}; {remedy}")


def _differ(old: Any, new: Any) -> bool:
    if isinstance(old, dict) and isinstance(new, dict):
        keys = old.keys() | new.keys() - {key for key in _NEWER if key not in old}
        return any(_differ(old.get(key), new.get(key)) for key in keys)
    return old != new


def _came_and_went(workdir: Path, dataset: Dataset) -> str:
    """Lists the new and the missing names for a message; empty if the run's own are not known."""
    try:
        kept = json.loads(gzip.decompress((workdir / FILE).read_bytes()))
        old = {name for names in kept.values() for name in names}
    except Exception:  # whatever is wrong with that file, the message is about the data
        return ""
    if not all(isinstance(name, str) for name in old):
        return ""
    new = {name for names in _names(dataset).values() for name in names}
    return "".join(
        f"; {word}: {_listed(names)}"
        for word, names in (("new", new - old), ("gone", old - new))
        if names
    )


def _names(dataset: Dataset) -> dict[str, list[str]]:
    return {name: split.names.tolist() for name, split in dataset.splits.items()}


def _listed(names: set[str]) -> str:
    shown = ", ".join(sorted(names)[:_SHOWN])
    return shown + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
