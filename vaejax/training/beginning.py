"""The state with which a start of a run begins: that of its newest checkpoint, or a new one."""

import functools

import jax

from vaejax.records.versions import tell_of_other_versions
from vaejax.training.opening import Parts
from vaejax.training.resuming import restore_newest
from vaejax.training.saved_meta import Bookkeeping, from_meta
from vaejax.training.state import Carry, empty_window, starting


def restored_or_new(parts: Parts) -> tuple[Carry, Bookkeeping]:
    """Restores the newest checkpoint that is not damaged, or initialises a new state.

    Args:
      parts: what the run works with.

    Returns:
      The state and the sums of the metrics since the last log, and what the loop knows beside them.

    Raises:
      UserError: there are checkpoints, and none can be read; or they belong to another run.
    """
    restored = restore_newest(
        parts.checkpoints,
        parts.shapes,
        parts.shardings,
        config=parts.config,
        builds_on=parts.task.builds_on,
        dataset=parts.dataset,
        workdir=parts.workdir,
        group=parts.group,
    )
    if not restored:
        key = jax.random.key(parts.config.train.seed)
        return jax.jit(starting(parts.task), out_shardings=parts.shardings)(key), Bookkeeping(
            evaluation_due=parts.task.begins_trained
        )
    (state, window), meta = restored
    if window is None:
        begin = functools.partial(empty_window, parts.task)
        window = jax.jit(begin, out_shardings=parts.shardings.window)()
    tell_of_other_versions(meta.get("versions", {}))
    return Carry(state, window), from_meta(meta)
