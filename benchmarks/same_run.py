"""Compares what two runs have left: the same bit for bit, and no leftover files?"""

import json
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from vaejax.config.saved import load_json
from vaejax.errors import UserError
from vaejax.records.checkpoints import Checkpoints
from vaejax.runtime.mesh import single_device_mesh
from vaejax.runtime.shards import state_shardings
from vaejax.tasks.vae import vae_task
from vaejax.training.saved_state import items_like
from vaejax.training.state import shapes

# What depends on the clock: metrics of metrics.jsonl, and whole files.
CLOCK_METRICS = ("images_per_second", "data_wait")
CLOCK_FILES = ("goodput.jsonl",)


class Place(NamedTuple):
    """The directories of a run.

    Attributes:
      workdir: the work directory.
      cache: the directory for caches, its $XDG_CACHE_HOME.
      programs: the directory for compiled programs, its $JAX_COMPILATION_CACHE_DIR.
    """

    workdir: Path
    cache: Path
    programs: Path


def differences(expected: Place, found: Place) -> list[str]:
    """Returns in what a finished run differs from another, one line each; empty if in nothing.

    Compares the arrays and metadata of the newest checkpoint, the metrics, the bytes of every other
    file of the work directory and of the cache of pictures, and the names of all files, so that
    leftovers are found. Older checkpoints are left out because they depend on where a run was asked
    to stop, and TensorBoard's files because they depend on the clock. Checkpoints of later stages
    are left out too: their results are files of the work directory.
    """
    try:
        one, two = contents(expected), contents(found)
    except UserError as error:
        return [str(error)]
    return [
        *(f"{name} is missing" for name in sorted(one.keys() - two.keys())),
        *(f"{name} is left over" for name in sorted(two.keys() - one.keys())),
        *(f"{name} differs" for name in sorted(one.keys() & two.keys()) if one[name] != two[name]),
    ]


def contents(place: Place) -> dict[str, bytes]:
    """Returns the bytes of all that a run has left and that does not depend on the clock, by name.

    Raises:
      UserError: the run has no checkpoint, or its newest cannot be read.
    """
    found = _files(place.cache, "cache") | _files(place.workdir, "")
    for path in place.workdir.rglob("metrics.jsonl"):  # each stage has its own
        found[str(path.relative_to(place.workdir))] = _metrics(path)
    return found | _newest_checkpoint(place.workdir)


def _files(top: Path, prefix: str) -> dict[str, bytes]:
    """Reads files and directories, but for the checkpoints of each step and TensorBoard's files."""
    found = {}
    for path in top.rglob("*"):
        parts = path.relative_to(top).parts
        name = "/".join(filter(None, (prefix, *parts)))
        of_a_step = ("checkpoints", True) in zip(parts, map(str.isdigit, parts[1:]))
        if "tensorboard" in parts or of_a_step:
            continue
        found[name] = b"" if path.is_dir() or path.name in CLOCK_FILES else path.read_bytes()
    return found


def _metrics(path: Path) -> bytes:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    kept = [{name: line[name] for name in line if name not in CLOCK_METRICS} for line in lines]
    return json.dumps(kept).encode()


def _newest_checkpoint(workdir: Path) -> dict[str, bytes]:
    config = load_json(workdir / "config.json")
    like = shapes(vae_task(config))
    shardings = state_shardings(single_device_mesh(), like)
    with closing(Checkpoints(workdir / "checkpoints", read_only=True)) as checkpoints:
        if not checkpoints.steps():
            raise UserError(f"{workdir} holds no checkpoint")
        newest = checkpoints.steps()[-1]
        items = checkpoints.restore(newest, *items_like(checkpoints, newest, like, shardings))
        checkpoints.verify(newest, items)
        meta = checkpoints.meta(newest)
    found = {"what the newest checkpoint says": json.dumps(meta, sort_keys=True).encode()}
    for path, leaf in jax.tree_util.tree_leaves_with_path(jax.device_get(items)):
        array = np.asarray(leaf)
        name = f"items{jax.tree_util.keystr(path)} of the newest checkpoint"
        found[name] = f"{array.dtype} {array.shape} ".encode() + array.tobytes()
    return found
