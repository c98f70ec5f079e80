"""Checkpoints: state and what belongs to it, saved as one unit. The only room that knows Orbax."""

import logging
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from jax.sharding import Sharding
from jaxtyping import PyTree
from orbax.checkpoint import checkpoint_managers

from vaejax.errors import UserError

STATE, META = "state", "meta"
# The validation figure that decides which checkpoint is the best: lower is better.
METRIC = "elbo_bits_per_dim"


class Checkpoints:
    """The checkpoints of one run: the newest few and the best by validation.

    Saving is asynchronous and atomic: a checkpoint is there wholly or not at all.
    """

    def __init__(self, directory: Path, *, keep: int = 1, read_only: bool = False):
        """Opens `directory`, making it unless `read_only`."""
        # Orbax reports every step of its work, and warns of each checkpoint without metrics.
        logging.getLogger("absl").setLevel(logging.ERROR)
        policy = checkpoint_managers.AnyPreservationPolicy(
            [
                checkpoint_managers.LatestN(keep),
                checkpoint_managers.BestN(
                    get_metric_fn=lambda metrics: metrics[METRIC],
                    reverse=True,
                    n=1,
                    keep_checkpoints_without_metrics=False,
                ),
            ]
        )
        options = ocp.CheckpointManagerOptions(
            # A manager that may not write takes no policy for what to delete.
            preservation_policy=None if read_only else policy,
            best_fn=lambda metrics: metrics[METRIC],
            best_mode="min",
            create=not read_only,
            read_only=read_only,
            step_format_fixed_length=8,
            enable_async_checkpointing=not read_only,
        )
        self._manager = ocp.CheckpointManager(
            Path(directory).absolute(), options=options, item_names=(STATE, META)
        )

    def save(self, step: int, state: PyTree, meta: dict, metrics: dict[str, float] | None) -> None:
        """Begins to save; returns as soon as `state` may be changed again."""
        if step in self._manager.all_steps():  # saved on the way out, before its evaluation
            self._manager.delete(step)
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

    def restore(self, step: int, like: PyTree, sharding: Sharding) -> PyTree:
        """The state saved at `step`, placed by `sharding`.

        Args:
          step: one of `steps()`.
          like: arrays or shapes of the state expected.
          sharding: where each array is to lie, whatever devices it was saved from.

        Raises:
          UserError: the checkpoint cannot be read, or holds another state.
        """
        target = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), like
        )
        return self._restore(step, STATE, ocp.args.StandardRestore(target))

    def meta(self, step: int) -> dict[str, Any]:
        """What was saved beside the state at `step`."""
        return self._restore(step, META, ocp.args.JsonRestore())

    def _restore(self, step: int, item: str, args: ocp.args.CheckpointArgs) -> Any:
        try:
            return self._manager.restore(step, args=ocp.args.Composite(**{item: args}))[item]
        # Orbax raises whatever the file system, the parser or the shapes raised.
        except Exception as error:
            reason = (str(error).strip() or "no reason given").splitlines()[0][:200]
            raise UserError(
                f"the checkpoint {self._manager.directory / f'{step:08d}'} cannot be read "
                f"({type(error).__name__}: {reason}); remove that folder to go on from the one "
                "before"
            ) from error

    def wait(self) -> None:
        """Returns when everything is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits and lets go of the directory."""
        self._manager.close()
