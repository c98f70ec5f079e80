"""Rollback of a run in trouble: to which step, and with how much of the learning rate.

The device keeps the rollbacks and the learning rate's scale, so that they are saved with the state;
these functions change them on the host.
"""

import numpy as np
from jax.sharding import Mesh

from vaejax.config import TrainConfig
from vaejax.runtime.mesh import to_every_device
from vaejax.training.state import TrainState

# A run that needs a third rollback does not suffer from its learning rate.
MAX_ROLLBACKS = 2


def slowed(state: TrainState, settings: TrainConfig, mesh: Mesh, *, rollbacks: int) -> TrainState:
    """`state` after so many rollbacks, each of which has lowered the learning rate once more."""
    return state.replace(
        rollbacks=to_every_device(np.asarray(rollbacks, np.int32), mesh),
        learning_rate_scale=to_every_device(
            np.asarray(settings.rollback_factor**rollbacks, np.float32), mesh
        ),
    )


def recovered(
    state: TrainState, settings: TrainConfig, mesh: Mesh, *, step: int, trouble_step: int
) -> TrainState | None:
    """`state` with one rollback forgotten after a long stretch without trouble; None if not yet.

    Args:
      state: state of the run.
      settings: `rollback_memory` says how long.
      mesh: on which the state lies.
      step: updates so far.
      trouble_step: the step of the last rollback, or at which one was last forgotten.
    """
    rollbacks = int(state.rollbacks)
    if not rollbacks or step - trouble_step < settings.rollback_memory:
        return None
    return slowed(state, settings, mesh, rollbacks=rollbacks - 1)
