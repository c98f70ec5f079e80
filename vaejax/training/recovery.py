"""Lowers the learning rate of a run that was rolled back, and raises it again later.

The number of rollbacks and the learning rate's scale belong to the state on the devices, so that
they are saved with it; these functions change them from the host.
"""

import numpy as np
from jax.sharding import Mesh

from vaejax.config import TrainConfig
from vaejax.runtime.mesh import to_every_device
from vaejax.training.state import TrainState

# If a run needs a third rollback, its learning rate is not the cause.
MAX_ROLLBACKS = 2


def slowed(state: TrainState, settings: TrainConfig, mesh: Mesh, *, rollbacks: int) -> TrainState:
    """Returns `state` with so many rollbacks, each of which lowers the learning rate once more.

    Args:
      state: the run's state.
      settings: its `rollback_factor` multiplies the learning rate at each rollback.
      mesh: the devices that hold the state.
      rollbacks: number of rollbacks in all.
    """
    return state.replace(
        rollbacks=to_every_device(np.asarray(rollbacks, np.int32), mesh),
        learning_rate_scale=to_every_device(
            np.asarray(settings.rollback_factor**rollbacks, np.float32), mesh
        ),
    )


def recovered(
    state: TrainState, settings: TrainConfig, mesh: Mesh, *, step: int, trouble_step: int
) -> TrainState | None:
    """Returns `state` with one rollback forgotten after enough updates without trouble.

    Args:
      state: the run's state.
      settings: its `rollback_memory` is the number of updates that are enough.
      mesh: the devices that hold the state.
      step: number of updates so far.
      trouble_step: the step of the last rollback, or the step at which one was last forgotten.

    Returns:
      The new state; None if it is too early, or no rollback is left to forget.
    """
    rollbacks = int(state.rollbacks)
    if not rollbacks or step - trouble_step < settings.rollback_memory:
        return None
    return slowed(state, settings, mesh, rollbacks=rollbacks - 1)
