"""Evaluates the reconstructions of a finished decoder."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, PyTree

from vaejax.likelihoods import Images, Likelihood, to_picture
from vaejax.metrics.image import psnr, ssim
from vaejax.runtime.compiling import jit, precise
from vaejax.runtime.mesh import replicated, split_batch, to_devices


class Evaluator:
    """Computes PSNR and SSIM of the decoded posterior means of a split."""

    def __init__(
        self,
        model: nn.Module,
        likelihood: Likelihood,
        params_of: Callable[[dict[str, PyTree]], PyTree],
        mesh: Mesh,
    ):
        """Compiles on the first call.

        Args:
          model: the finished VAE, in float32.
          likelihood: the likelihood whose mean is its picture.
          params_of: maps the networks' parameters to those of `model`.
          mesh: mesh of the devices.
        """
        self._mesh = mesh

        @precise
        def totals(
            params: dict[str, PyTree], images: Images, mask: Bool[Array, "batch"]
        ) -> Float[Array, "3"]:
            whole = {"params": params_of(params)}
            shown = to_picture(likelihood, model.apply(whole, images, method="reconstruct"))
            # The PSNR of an exact match is infinite, and so would be the mean.
            figures = [jnp.minimum(psnr(images, shown), 100.0), ssim(images, shown)]
            counted = [jnp.sum(jnp.where(mask, some, jnp.zeros_like(some))) for some in figures]
            return jnp.stack([*counted, jnp.sum(mask, dtype=jnp.float32)])

        everywhere, split = replicated(mesh), split_batch(mesh)
        self._totals = jit(
            totals, mesh=mesh, in_shardings=(everywhere, split, split), out_shardings=everywhere
        )

    def __call__(
        self, params: dict[str, PyTree], batches: Iterable[dict[str, np.ndarray]]
    ) -> Float[np.ndarray, "3"] | None:
        """Returns PSNR and SSIM summed over pictures, and their number; None without pictures."""
        totals: Any = np.zeros(3)
        for batch in batches:
            arrays = to_devices(batch, split_batch(self._mesh))
            found = self._totals(params, arrays["image"], arrays["mask"])
            totals = totals + np.asarray(jax.device_get(found), np.float64)
        return totals if totals[2] else None

    def summarize(self, totals: Float[np.ndarray, "3"]) -> dict[str, float]:
        """Returns the means `psnr` (dB) and `ssim`, and the number of `pictures`."""
        psnr_sum, ssim_sum, count = map(float, totals)
        return {"psnr": psnr_sum / count, "ssim": ssim_sum / count, "pictures": count}
