"""Evaluates a flow over codes by its flow matching loss."""

from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, PyTree

from vaejax.models.noise import picture_keys
from vaejax.runtime.mesh import split_batch, to_devices

# The mean over codes varies too much with one noise and time for each code of 128 dimensions, and
# little with eight. The loss of a larger code is a mean over more dimensions.
_DRAWS, _DIMENSIONS = 8, 1024
_SEED = 2**31 - 3


class MeanLoss:
    """Evaluates the loss over the codes of a split, with the same noise and times in each call."""

    def __init__(self, net: str, errors: Callable[..., Float[Array, "batch"]], mesh: Mesh):
        """Compiles on the first call.

        Args:
          net: name of the network.
          errors: (params, batch, keys, times) -> the loss of each code at a time.
          mesh: mesh of the devices.
        """
        self._net, self._mesh = net, mesh
        root = jax.random.key(_SEED)

        @jax.jit
        def total(params: PyTree, batch: dict[str, Array]) -> Float[Array, ""]:
            def of_draw(draw: Int[Array, ""]) -> Float[Array, ""]:
                keys = picture_keys(root, batch["index"], draw)
                times = jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, 1)))(keys)
                found = errors(params, batch, keys, times)
                return jnp.sum(jnp.where(batch["mask"], found, jnp.zeros_like(found)))

            draws = min(_DRAWS, -(-_DIMENSIONS // batch["code"].shape[1]))
            return jnp.mean(jax.lax.map(of_draw, jnp.arange(draws)))

        self._total = total

    def __call__(
        self, params: dict[str, PyTree], batches: Iterable[dict[str, np.ndarray]]
    ) -> Float[np.ndarray, "2"] | None:
        """Returns the loss summed over all codes, and their number; None if there are none."""
        totals = np.zeros(2)
        for batch in batches:
            arrays = to_devices(batch, split_batch(self._mesh))
            total = self._total(params[self._net], arrays)
            count = jnp.sum(arrays["mask"], dtype=jnp.float32)
            totals += np.array(jax.device_get([total, count]), np.float64)
        return totals if totals[1] else None

    def summarize(self, totals: Float[np.ndarray, "2"]) -> dict[str, float]:
        """Returns the mean of `loss` over the codes, and the number of `codes`."""
        return {"loss": float(totals[0] / totals[1]), "codes": float(totals[1])}
