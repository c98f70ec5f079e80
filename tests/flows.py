"""Trains flow priors on codes with the training step of a run, without its loop."""

import jax
import jax.numpy as jnp
import numpy as np
from tiny import tiny, without

from vaejax.data import Dataset
from vaejax.data.feed.pipeline import train_batches
from vaejax.priors import FlowMatching
from vaejax.runtime.mesh import single_device_mesh
from vaejax.tasks.flow_prior import FlowPriorTask
from vaejax.training.state import starting
from vaejax.training.step import make_train_step


def no_picture(codes):
    """Stands in for the function that decodes codes to pictures, and fails if it is called."""
    raise AssertionError("these codes are of no pictures")


def train_flow(
    codes,
    steps: int,
    *,
    latent_shape: tuple[int, ...] = (2,),
    batch_size: int = 256,
    labels: dict[str, np.ndarray] | None = None,
    **flow: int,
) -> FlowMatching:
    """Returns the prior with the averaged parameters of a flow after `steps` updates.

    Args:
      codes: the training codes.
      steps: number of updates.
      latent_shape: shape of a code.
      batch_size: codes of an update.
      labels: the values of labels on which the flow is conditioned, by name.
      **flow: settings of `config.flow`; other sizes of the network than usual.
    """
    dispatch = 50 if steps % 50 == 0 else 1
    config = tiny(
        optimizer={
            "learning_rate": 5e-3, "warmup_steps": 50, "final_fraction": 0.0, "b2": 0.999,
            "ema_decay": 0.99,
        },
        train={
            "steps": max(steps, dispatch), "batch_size": batch_size,
            "steps_per_dispatch": dispatch, "log_every": dispatch, "eval_every": dispatch,
            "save_every": dispatch,
        },
    )  # fmt: skip
    # Unchecked: the latents of the tiny config's model are no maps.
    labels = labels or {}
    settings = {"width": 32, "blocks": 2, "labels": tuple(labels), **flow}
    config = without(config, "flow", **settings)
    values = {"train": np.stack(list(labels.values()), axis=1).astype(np.float32)} if labels else {}
    codes = {"train": np.asarray(codes, np.float32)}
    task = FlowPriorTask(config, codes, no_picture, {}, latent_shape=latent_shape, labels=values)
    arrays = task.examples(Dataset({}, {}, {}))["train"]
    step = make_train_step(task, config.train, single_device_mesh(), on_device=True)
    carry = jax.jit(starting(task))(jax.random.key(0))
    batches = train_batches(arrays, seed=0, batch_size=batch_size, only_index=True)
    for _ in range(0, steps, dispatch):
        index = jnp.asarray(np.stack([next(batches)["index"] for _ in range(dispatch)]), jnp.int32)
        carry, _ = step(carry, {"index": index}, arrays)
    return task.prior({name: net.average for name, net in carry.state.nets.items()})
