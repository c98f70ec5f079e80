"""Checkpoints: state and what belongs to it, saved as one unit. The only room that knows Orbax."""

import functools
import inspect
import json
import logging
import math
import shutil
import sys
import zlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import Array, PyTree, Shaped, UInt32
from orbax.checkpoint import checkpoint_managers

from vaejax.errors import DamagedCheckpoint, UserError

STATE, META = "state", "meta"
# In META, beside what the caller keeps there: sums over the state and over the rest of META.
_DIGESTS, _LAYOUT = "digests", "layout"
# Before the name of one that is about to be replaced.
_REPLACED = "replaced."
# The validation figure that decides which checkpoint is the best: lower is better.
METRIC = "elbo_bits_per_dim"


class Checkpoints:
    """The checkpoints of one run: the newest few and the best by validation.

    Saving is asynchronous and atomic: a checkpoint is there wholly or not at all. All processes
    of a run save together; each reads on its own, with one that is `read_only`.
    """

    def __init__(self, directory: Path, *, keep: int = 1, read_only: bool = False):
        """Opens `directory`, making it unless `read_only`.

        Raises:
          DamagedCheckpoint: the validation figure of one cannot be read.
        """
        for path in unreadable_metrics(directory):
            raise DamagedCheckpoint(
                f"{path} is damaged; remove it, and that checkpoint counts as not validated, or "
                "train on, which does the same"
            )
        # Orbax reports every step of its work, and warns of each checkpoint without metrics.
        logging.getLogger("absl").setLevel(logging.ERROR)
        policy = checkpoint_managers.AnyPreservationPolicy(
            [
                checkpoint_managers.LatestN(keep),
                checkpoint_managers.BestN(
                    get_metric_fn=_rank,
                    reverse=True,
                    n=1,
                    keep_checkpoints_without_metrics=False,
                ),
            ]
        )
        options = ocp.CheckpointManagerOptions(
            # A manager that may not write takes no policy for what to delete.
            preservation_policy=None if read_only else policy,
            best_fn=_rank,
            best_mode="min",
            create=not read_only,
            read_only=read_only,
            step_format_fixed_length=8,
            enable_async_checkpointing=not read_only,
        )
        if read_only:
            own = jax.process_index()
            options.multiprocessing_options = ocp.options.MultiprocessingOptions(
                primary_host=own, active_processes={own}, barrier_sync_key_prefix=f"reader{own}"
            )
        self._directory = Path(directory).absolute()
        self._manager = ocp.CheckpointManager(
            self._directory, options=options, item_names=(STATE, META)
        )

    def save(self, step: int, state: PyTree, meta: dict, metrics: dict[str, float] | None) -> None:
        """Begins to save; returns as soon as `state` may be changed again.

        All processes call it. What was saved at this step before, on the way out and without its
        evaluation, is replaced, and can be taken back until that is done.
        """
        self.wait()
        if step in self._manager.all_steps():
            if jax.process_index() == 0:
                self.path(step).rename(self._directory / f"{_REPLACED}{step:08d}")
            # Finds nothing to delete; has every process forget it, and wait until all have.
            self._manager.delete(step)
        meta = {**meta, _LAYOUT: _layout(state)}
        meta = {**meta, _DIGESTS: {STATE: _digest(state), META: _json_digest(meta)}}
        self._manager.save(
            step,
            args=ocp.args.Composite(
                **{STATE: ocp.args.StandardSave(state), META: ocp.args.JsonSave(meta)}
            ),
            metrics=metrics,
            force=True,
        )

    def steps(self) -> list[int]:
        """The steps that can be restored, oldest first."""
        return sorted(self._manager.all_steps())

    def best_step(self) -> int | None:
        """The step with the lowest validation bits/dim; the newest if none was validated."""
        best = self._manager.best_step()
        return self._manager.latest_step() if best is None else best

    def restore(self, step: int, like: PyTree, shardings: PyTree) -> PyTree:
        """The state saved at `step`, placed by `shardings`; whether it is that, `verify` knows.

        Args:
          step: one of `steps()`.
          like: arrays or shapes of the state expected.
          shardings: where each array is to lie, whatever devices it was saved from.

        Raises:
          DamagedCheckpoint: it cannot be read.
          UserError: another version of vaejax saved it, whose state has other names or shapes.
        """
        saved_meta = self._saved_meta(step)
        if saved_meta.get(_LAYOUT, _layout(like)) != _layout(like):
            raise UserError(
                f"the checkpoint {self.path(step)} is of another version of vaejax, whose model "
                "has other parameters; go on with that version, or choose another --workdir"
            )
        target = jax.tree.map(
            lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
            like,
            shardings,
        )
        return self._restore(step, STATE, ocp.args.StandardRestore(target))

    def verify(self, step: int, state: PyTree) -> None:
        """Compares what was restored with what was saved; all that hold a part of it do so at once.

        Raises:
          DamagedCheckpoint: it is something else.
        """
        # First: nothing that one process may fail at comes before what all do together.
        digest = _digest(state)
        self._check(step, STATE, self._saved_meta(step), digest)

    def meta(self, step: int) -> dict[str, Any]:
        """What was saved beside the state at `step`.

        Raises:
          DamagedCheckpoint: it cannot be read.
        """
        saved = self._saved_meta(step)
        return {name: saved[name] for name in saved if name not in (_DIGESTS, _LAYOUT)}

    def path(self, step: int) -> Path:
        """The folder of a checkpoint."""
        return self._directory / f"{step:08d}"

    def reload(self) -> None:
        """Looks again at what there is."""
        self._manager.reload()

    def _restore(self, step: int, item: str, args: ocp.args.CheckpointArgs) -> Any:
        _expect_orphans()
        try:
            return self._manager.restore(step, args=ocp.args.Composite(**{item: args}))[item]
        # Orbax raises whatever the file system, the parser or the shapes raised.
        except Exception as error:
            reason = (str(error).strip() or "no reason given").splitlines()[0]
            reason = reason.partition(". See full ")[0][:120]
            raise self._damaged(step, f"{type(error).__name__}: {reason}") from error

    def _saved_meta(self, step: int) -> dict[str, Any]:
        saved = self._restore(step, META, ocp.args.JsonRestore())
        meta = {name: value for name, value in saved.items() if name != _DIGESTS}
        self._check(step, META, saved, _json_digest(meta))
        return saved

    def _check(self, step: int, item: str, saved_meta: dict[str, Any], digest: int) -> None:
        """Nothing else notices a bit that was flipped on its way to the disk and back."""
        if _DIGESTS in saved_meta and saved_meta[_DIGESTS][item] != digest:
            raise self._damaged(step, f"its {item} is not what was saved")

    def _damaged(self, step: int, why: str) -> DamagedCheckpoint:
        return DamagedCheckpoint(f"the checkpoint {self.path(step)} is damaged ({why})")

    def wait(self) -> None:
        """Returns when everything is on disk."""
        self._manager.wait_until_finished()
        if jax.process_index() == 0:
            settle_replaced(self._directory)

    def close(self) -> None:
        """Waits and lets go of the directory."""
        self._manager.close()


def _rank(metrics: dict[str, float]) -> float:
    """By which checkpoints are sorted: one whose validation was not finite is never the best."""
    return metrics[METRIC] if math.isfinite(metrics[METRIC]) else math.inf


def saved(directory: Path) -> list[Path]:
    """The folders of the checkpoints that are there wholly, if `directory` is."""
    return [path for path in directory.glob("[0-9]*") if path.name.isdigit()]


def settle_replaced(directory: Path) -> None:
    """Removes a checkpoint that another has replaced; takes it back where that was not finished."""
    for old in directory.glob(f"{_REPLACED}*"):
        new = directory / old.name.removeprefix(_REPLACED)
        if new.exists():
            shutil.rmtree(old)
        else:
            old.rename(new)


def unreadable_metrics(directory: Path) -> list[Path]:
    """Damaged files of validation figures, without which Orbax opens no checkpoint at all."""
    paths = [folder / "metrics" / "metrics" for folder in saved(directory)]
    return [path for path in paths if not _is_metrics(path)]


def _is_metrics(path: Path) -> bool:
    try:
        return isinstance(json.loads(path.read_bytes())[METRIC], float)
    except FileNotFoundError:
        return True  # not validated, or deleted meanwhile
    except (ValueError, KeyError, TypeError):
        return False


@functools.cache
def _expect_orphans() -> None:
    """Has nobody told of the other reads of one that failed: each complains, with a traceback."""
    report = sys.unraisablehook

    def filtered(complaint: Any) -> None:
        orphan = inspect.iscoroutine(complaint.object) or "Event loop is closed" in str(
            complaint.exc_value
        )
        if not orphan:
            report(complaint)

    sys.unraisablehook = filtered


def _layout(state: PyTree) -> int:
    """One number for the names, shapes and types in a state."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    names = [f"{jax.tree_util.keystr(path)} {leaf.shape} {leaf.dtype}" for path, leaf in leaves]
    return _json_digest({"leaves": names})


def _json_digest(value: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(value, sort_keys=True).encode())


def _digest(state: PyTree) -> int:
    """One number for all bits of a state, whatever devices it lies on."""
    total = 0
    # One program for each shape, not one for all: a state has few shapes and many leaves. Leaf
    # after leaf: of exchanges that wait together, CPUs may begin another than their peers do.
    for leaf in jax.tree.leaves(state):
        total = (total * 31 + int(_leaf_digest(leaf))) % 2**32
    return total


@jax.jit
def _leaf_digest(leaf: Shaped[Array, "..."]) -> UInt32[Array, ""]:
    bits = jax.lax.bitcast_convert_type(leaf, jnp.uint32)
    place = jnp.zeros(leaf.shape, jnp.uint32)
    for axis, size in enumerate(leaf.shape):
        place = place * np.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, leaf.shape, axis)
    # Odd factors that differ from place to place (Knuth's multiplicative hash): neither a
    # changed bit nor two numbers that changed places go unnoticed. Sums wrap around.
    mixed = (bits + np.uint32(1)) * (place * np.uint32(2654435761) | np.uint32(1))
    return jnp.sum(mixed, dtype=jnp.uint32)
