"""Feeds the train step: with examples, or with indices of examples that the devices hold."""

from collections.abc import Iterator

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array

from vaejax.config import Config
from vaejax.data.feed import pipeline
from vaejax.records.progress import say
from vaejax.runtime.mesh import split_batch, to_devices, to_every_device

# The training split may take this share of a device's memory; the step needs the rest.
RESIDENT_SHARE = 0.25


class Feed:
    """Brings the training batches to the devices.

    There are two ways, which give the same batches: each batch carries its examples, or every
    device holds the whole training split and a batch carries only indices into it. By default
    (`config.data.on_device` = "auto") the split goes to the devices if it takes no more than
    `RESIDENT_SHARE` of their memory.

    Attributes:
      resident: a tuple of one dict, the training split's arrays by name, whole on every device,
        from which the step picks; empty where each batch carries its examples.
    """

    def __init__(self, config: Config, arrays: pipeline.Arrays, mesh: Mesh, memory: int | None):
        """Copies `arrays` to the devices of `mesh` if they are to hold the training split.

        Args:
          config: the run's config.
          arrays: the examples to train on.
          mesh: the devices.
          memory: bytes of memory of one device, the same number on all processes; None if unknown.
        """
        self._settings, self._arrays, self._mesh = config.train, arrays, mesh
        self.resident: tuple[dict[str, Array], ...] = ()
        wanted, size = config.data.on_device, sum(array.nbytes for array in arrays.values())
        fits = size <= RESIDENT_SHARE * (memory or 0)
        if wanted == "always" or (wanted == "auto" and fits):
            say(f"the training set lies on the device: {size / 1e9:.2g} GB")
            whole = {name: to_every_device(array, mesh) for name, array in arrays.items()}
            self.resident = (whole,)

    def batches(self, first_step: int) -> Iterator[dict[str, Array]]:
        """Yields the batches from `first_step` on: global arrays by name, [dispatch, batch, ...].

        A batch holds examples and their `index`, or the `index` alone if the examples are resident.
        """
        settings = self._settings
        batches = pipeline.train_batches(
            self._arrays,
            seed=settings.seed,
            batch_size=settings.batch_size,
            first_step=first_step,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            only_index=bool(self.resident),
        )
        sharding = split_batch(self._mesh, leading_axes=1)
        while True:
            some = [next(batches) for _ in range(settings.steps_per_dispatch)]
            stacked = {name: np.stack([batch[name] for batch in some]) for name in some[0]}
            yield to_devices(stacked, sharding)
