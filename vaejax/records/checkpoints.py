"""Checkpoints: trees of arrays and their metadata, saved as one unit.

This is the only module that imports Orbax.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from jax.sharding import NamedSharding
from jaxtyping import PyTree
from orbax.checkpoint import checkpoint_managers

from vaejax.errors import DamagedCheckpoint, UserError
from vaejax.records.checkpoint_files import REPLACED, settle_replaced, unreadable_metrics
from vaejax.records.digests import digest, json_digest, layout_digest
from vaejax.records.ranking import Ranking
from vaejax.runtime.quiet import call_quietly

META = "meta"
# The only item of arrays in checkpoints of version 0.1.
STATE_OF_0_1 = "state"
# Keys in META beside those of the caller: digests of each item and of the rest of META; digests of
# the names, shapes and types in each item.
_DIGESTS, _LAYOUT = "digests", "layout"


class Checkpoints:
    """The checkpoints of one run: the newest few and the best by validation.

    Saving is asynchronous and atomic: a checkpoint is complete or does not exist. All processes of
    a run save together; each reads on its own, through an instance that is `read_only`. Any
    exception of Orbax becomes one with a one-line message: `UserError` where something cannot be
    written or the storage cannot be reached, `DamagedCheckpoint` where it cannot be read.
    """

    def __init__(
        self,
        directory: Path,
        *,
        best_by: Ranking | None = None,
        keep: int = 1,
        read_only: bool = False,
    ):
        """Opens `directory`, creating it unless `read_only`.

        Args:
          directory: directory of the checkpoints.
          best_by: decides which one is the best; without it the newest counts as the best.
          keep: number of newest checkpoints that are kept, beside the best.
          read_only: whether checkpoints are only read, never saved or deleted.

        Raises:
          DamagedCheckpoint: the validation metrics of a checkpoint cannot be read.
          UserError: the directory cannot be created or listed.
        """
        for path in unreadable_metrics(directory, best_by.metric if best_by else None):
            raise DamagedCheckpoint(
                f"{path} is damaged; remove it, and that checkpoint counts as not validated, or "
                "train on, which does the same"
            )
        self._directory, self._best_by = Path(directory).absolute(), best_by
        self._manager = self._stored(
            lambda: _open_manager(self._directory, best_by, keep, read_only)
        )

    def save(
        self, step: int, items: dict[str, PyTree], meta: dict, metrics: dict[str, float] | None
    ) -> None:
        """Starts to save; returns as soon as the arrays may be changed again.

        All processes must call it. An earlier checkpoint of the same step, saved on exit before
        its evaluation, is replaced; it can be restored until the new one is complete.

        Args:
          step: number of updates so far, by which the checkpoint is named.
          items: trees of arrays by name; each can be read without the others.
          meta: metadata that JSON can hold.
          metrics: metrics of the validation; None if there was none.

        Raises:
          UserError: this checkpoint or the one before cannot be written. Earlier ones are
            unchanged.
        """
        self.wait()
        if step in self._manager.all_steps():
            if jax.process_index() == 0:
                replaced = self._directory / f"{REPLACED}{step:08d}"
                self._stored(lambda: self.path(step).rename(replaced))
            # Nothing is left to delete: this makes every process forget the step and wait for all.
            self.delete(step)
        if metrics is not None and self._best_by:
            # So that every file of metrics has it, and one without it is known to be damaged.
            metrics = {self._best_by.metric: math.nan, **metrics}
        meta = {**meta, _LAYOUT: {name: layout_digest(tree) for name, tree in items.items()}}
        digests = {name: digest(tree) for name, tree in items.items()} | {META: json_digest(meta)}
        args = {name: ocp.args.StandardSave(tree) for name, tree in items.items()}
        args[META] = ocp.args.JsonSave({**meta, _DIGESTS: digests})
        self._stored(
            lambda: self._manager.save(
                step, args=ocp.args.Composite(**args), metrics=metrics, force=True
            )
        )

    def delete(self, step: int) -> None:
        """Deletes the checkpoint of `step`; all processes must call it.

        Raises:
          UserError: it cannot be deleted.
        """
        self._stored(lambda: self._manager.delete(step))

    def steps(self) -> list[int]:
        """Returns the steps that can be restored, oldest first."""
        return sorted(self._manager.all_steps())

    def best_step(self) -> int | None:
        """Returns the step of the best checkpoint, or the newest if none was validated."""
        best = self._manager.best_step()
        return self._manager.latest_step() if best is None else best

    def items(self, step: int) -> list[str]:
        """Returns the names of a checkpoint's trees of arrays.

        Raises:
          DamagedCheckpoint: its metadata cannot be read.
          UserError: its storage cannot be reached.
        """
        layout = self._saved_meta(step).get(_LAYOUT)
        return list(layout) if isinstance(layout, dict) else [STATE_OF_0_1]

    def fits(self, step: int, name: str, like: PyTree) -> bool:
        """Whether an item of a checkpoint has the names, shapes and types of `like`.

        The state of a checkpoint of version 0.1 that did not record them always fits.

        Raises:
          DamagedCheckpoint: the metadata cannot be read.
          UserError: the storage cannot be reached.
        """
        layout = self._saved_meta(step).get(_LAYOUT)
        if isinstance(layout, dict):
            return layout.get(name) == layout_digest(like)
        return name == STATE_OF_0_1 and layout in (None, layout_digest(like))

    def restore(
        self, step: int, like: dict[str, PyTree], shardings: dict[str, PyTree]
    ) -> dict[str, PyTree]:
        """Restores items of a checkpoint; `verify` checks that they are what was saved.

        Args:
          step: one of `steps()`.
          like: arrays or shapes of the wanted items, by name.
          shardings: where to place each array, by item name, whatever devices it was saved from.

        Raises:
          DamagedCheckpoint: it cannot be read.
          UserError: another version of vaejax saved it, with other names or shapes; or its storage
            cannot be reached.
        """
        for name, tree in like.items():
            self._check_layout(step, name, tree)
        return self._read(
            step,
            {
                name: ocp.args.StandardRestore(_placed(tree, shardings[name]))
                for name, tree in like.items()
            },
        )

    def restore_part(
        self, step: int, name: str, part: str, like: PyTree, sharding: NamedSharding
    ) -> PyTree:
        """Restores and verifies one attribute of an item, so that the others take no memory.

        Args:
          step: one of `steps()`.
          name: name of the item.
          part: name of the attribute of the item's tree.
          like: arrays or shapes of the whole item.
          sharding: where to place each array of the attribute.

        Returns:
          The attribute; None if the checkpoint has no digest of it alone.

        Raises:
          DamagedCheckpoint: it cannot be read, or is not what was saved.
          UserError: another version of vaejax saved it, with other names or shapes; or its storage
            cannot be reached.
        """
        saved_meta = self._saved_meta(step)
        if part not in saved_meta[_DIGESTS]:
            return None
        self._check_layout(step, name, like)
        wanted = getattr(like, part)
        target = {part: _placed(wanted, jax.tree.map(lambda _: sharding, wanted))}
        args = ocp.args.PyTreeRestore(
            item=target,
            restore_args=ocp.checkpoint_utils.construct_restore_args(target),
            partial_restore=True,
        )

        def read() -> dict:
            with _own_reader() as reader:
                return reader.restore(self.path(step) / name, args=args)

        found = self._whole(step, read)[part]
        self._check(step, part, saved_meta, digest(found))
        return found

    def verify(self, step: int, items: dict[str, PyTree]) -> None:
        """Compares the digests of restored items with those that were saved.

        All processes that hold a part of the arrays must call it together.

        Raises:
          DamagedCheckpoint: an item is not what was saved.
          UserError: the storage cannot be reached.
        """
        # Digests first: they are computed together, and a process may fail to read the metadata.
        found = {name: digest(tree) for name, tree in items.items()}
        saved_meta = self._saved_meta(step)
        for name, number in found.items():
            self._check(step, name, saved_meta, number)

    def meta(self, step: int) -> dict[str, Any]:
        """Returns the metadata that the caller saved at `step`.

        Raises:
          DamagedCheckpoint: it cannot be read.
          UserError: its storage cannot be reached.
        """
        saved = self._saved_meta(step)
        return {name: saved[name] for name in saved if name not in (_DIGESTS, _LAYOUT)}

    def path(self, step: int) -> Path:
        """Returns the folder of the checkpoint of `step`."""
        return self._directory / f"{step:08d}"

    def reload(self) -> None:
        """Lists the directory again, after other code has changed it."""
        self._manager.reload()

    def _check_layout(self, step: int, name: str, like: PyTree) -> None:
        if not self.fits(step, name, like):
            raise UserError(
                f"the checkpoint {self.path(step)} is of another version of vaejax, whose model "
                "has other parameters; go on with that version, or choose another --workdir"
            )

    def _saved_meta(self, step: int) -> dict[str, Any]:
        saved = self._read(step, {META: ocp.args.JsonRestore()})[META]
        # A changed bit may leave valid JSON of another structure.
        if not isinstance(saved, dict) or not isinstance(saved.get(_DIGESTS), dict):
            raise self._damaged(step, f"its {META} has no digests")
        meta = {name: value for name, value in saved.items() if name != _DIGESTS}
        self._check(step, META, saved, json_digest(meta))
        return saved

    def _check(self, step: int, item: str, saved_meta: dict[str, Any], found: int) -> None:
        """Raises DamagedCheckpoint if an item's digest is not the saved one: a bit has flipped."""
        if saved_meta[_DIGESTS].get(item) != found:
            raise self._damaged(step, f"its {item} is not what was saved")

    def _read(self, step: int, args: dict[str, ocp.args.CheckpointArgs]) -> dict[str, Any]:
        composite = ocp.args.Composite(**args)
        return self._whole(step, lambda: dict(self._manager.restore(step, args=composite)))

    def _whole(self, step: int, read: Callable[[], Any]) -> Any:
        """Returns what `read` returns.

        Any exception of parsers, or for wrong shapes, means damage, unless the storage is out of
        reach.
        """
        found, failure = call_quietly(read)
        if failure and failure.away:
            raise UserError(
                f"the checkpoint {self.path(step)} cannot be read ({failure.reason}); see that its "
                "storage is there and may be read, and run it again"
            )
        if failure:
            raise self._damaged(step, failure.reason)
        return found

    def _stored(self, write: Callable[[], Any]) -> Any:
        """Returns what `write` returns; any exception of Orbax and its threads is a UserError."""
        done, failure = call_quietly(write)
        if failure:
            remedy = "make room" if failure.full else "see that it can be written"
            raise UserError(
                f"the checkpoints in {self._directory} could not be stored ({failure.reason}); "
                f"{remedy}, and run the same command to go on from the newest that is whole"
            )
        return done

    def _damaged(self, step: int, why: str) -> DamagedCheckpoint:
        return DamagedCheckpoint(f"the checkpoint {self.path(step)} is damaged ({why})")

    def wait(self) -> None:
        """Waits until everything is on disk.

        Raises:
          UserError: what was to be saved could not be written.
        """
        self._stored(self._manager.wait_until_finished)
        if jax.process_index() == 0:
            self._stored(lambda: settle_replaced(self._directory))

    def close(self) -> None:
        """Waits until everything is on disk, and closes the directory.

        Raises:
          UserError: what was to be saved could not be written.
        """
        self._stored(self._manager.close)


def _open_manager(
    directory: Path, best_by: Ranking | None, keep: int, read_only: bool
) -> ocp.CheckpointManager:
    policies = [checkpoint_managers.LatestN(keep)]
    if best_by:
        policies.append(
            checkpoint_managers.BestN(
                get_metric_fn=best_by.rank,
                reverse=True,
                n=1,
                keep_checkpoints_without_metrics=False,
            )
        )
    options = ocp.CheckpointManagerOptions(
        # A read-only manager accepts no preservation policy.
        preservation_policy=None
        if read_only
        else checkpoint_managers.AnyPreservationPolicy(policies),
        best_fn=best_by.rank if best_by else None,
        best_mode="min",
        create=not read_only,
        read_only=read_only,
        step_format_fixed_length=8,
        enable_async_checkpointing=not read_only,
    )
    if read_only:
        options.multiprocessing_options = _own_options()
    return ocp.CheckpointManager(directory, options=options)


def _placed(like: PyTree, shardings: PyTree) -> PyTree:
    """Returns shapes and types with the shardings of the arrays to restore."""
    return jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        like,
        shardings,
    )


def _own_reader() -> ocp.Checkpointer:
    """Returns a reader that waits for no other process."""
    return ocp.Checkpointer(
        ocp.PyTreeCheckpointHandler(multiprocessing_options=_own_options()),
        multiprocessing_options=_own_options(),
    )


def _own_options() -> ocp.options.MultiprocessingOptions:
    own = jax.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=own, active_processes={own}, barrier_sync_key_prefix=f"reader{own}"
    )
