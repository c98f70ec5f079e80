"""Draws codes and pictures from the priors of a trained model, batch by batch."""

from collections.abc import Callable, Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Bool, PyTree

from vaejax.likelihoods import Likelihood
from vaejax.models.noise import Keys, picture_keys
from vaejax.priors.fitted import FittedPrior
from vaejax.runtime.compiling import jit, precise
from vaejax.tasks.vae import functions
from vaejax.trained.arguments import (
    Groups,
    Latents,
    Temperature,
    as_temperatures,
    check_count,
    key_of,
)
from vaejax.trained.batching import in_batches
from vaejax.trained.inputs import Pictures


class Sampler:
    """Samples a model's own prior, or one that was fitted to its codes.

    Each picture has noise of its own, so that no result depends on the batches. All methods raise
    UserError for a count, a seed or a temperature out of its range.
    """

    def __init__(
        self,
        model: nn.Module,
        params: PyTree,
        drawing: tuple[nn.Module, Likelihood],
        picture_params: PyTree,
        size: int,
    ):
        """Compiles on the first call.

        Args:
          model: the VAE, whose prior is sampled.
          params: its parameters.
          drawing: the module that draws pictures, and the likelihood whose mean they are.
          picture_params: parameters of that module.
          size: largest number of pictures of a batch.
        """
        self._params, self._picture_params, self._size = params, picture_params, size
        self._resolutions = model.resolutions()
        self._sample_latents = jit(precise(partial(functions.sample_latents, model)))
        self._decode, self._sample, self._redraw = (
            jit(precise(partial(function, *drawing)))
            for function in (functions.decode, functions.sample, functions.redraw)
        )
        self._code_of_noise = jit(precise(lambda fitted, noise: fitted.from_noise(noise)))

    def decode(self, z: PyTree) -> Array:
        """Decodes the latents of one batch to pictures on the device."""
        return self._decode(self._picture_params, z)

    def pictures(
        self, fitted: FittedPrior | None, count: int, seed: int, temperature: Temperature
    ) -> Iterator[Pictures]:
        """Yields new pictures in batches.

        Args:
          fitted: the prior; None for the model's own.
          count: number of pictures.
          seed: seed of the noise.
          temperature: standard deviation of the noise.
        """
        if fitted is None:
            return self._drawn(self._sample, self._picture_params, count, seed, temperature)
        return self._from_fitted(self.decode, fitted, count, seed, temperature)

    def codes(
        self, fitted: FittedPrior | None, count: int, seed: int, temperature: Temperature
    ) -> Iterator[Latents]:
        """Yields the latents that `pictures` decodes, in batches."""
        if fitted is None:
            return self._drawn(self._sample_latents, self._params, count, seed, temperature)
        return self._from_fitted(lambda z: z, fitted, count, seed, temperature)

    def redrawn(
        self, z: Latents, keep: Bool[np.ndarray, "group"], seed: int, temperature: Temperature
    ) -> Iterator[tuple[Pictures, Groups]]:
        """Yields pictures and latents of a ladder in batches, some groups sampled anew.

        Args:
          z: latents.
          keep: whether to keep each group's latents, from the top.
          seed: seed of the noise.
          temperature: standard deviation of the noise.
        """

        def of_batch(params: dict, keys: Keys, temperature: np.ndarray, z: PyTree) -> PyTree:
            return self._redraw(params, z, jnp.asarray(keep), keys, temperature)

        return self._drawn(of_batch, self._picture_params, len(z[0]), seed, temperature, z)

    def _from_fitted(
        self,
        of_codes: Callable,
        fitted: FittedPrior,
        count: int,
        seed: int,
        temperature: Temperature,
    ) -> Iterator[PyTree]:
        """Applies `of_codes` to batches of `count` codes that a fitted prior samples."""
        spread = as_temperatures(temperature, self._resolutions)
        # Drawn at once, so that no picture's noise depends on the batches.
        noise = jax.device_get(fitted.noise(key_of(seed), count, float(spread)))
        return in_batches(
            lambda noise: of_codes(self._code_of_noise(fitted, noise)), noise, size=self._size
        )

    def _drawn(
        self,
        function: Callable,
        params: PyTree,
        count: int,
        seed: int,
        temperature: Temperature,
        *inputs: PyTree,
    ) -> Iterator[PyTree]:
        """Applies `function(params, keys, temperature, *inputs)` to batches of `count` pictures."""
        check_count(count)
        spread, key = as_temperatures(temperature, self._resolutions), key_of(seed)

        def of_batch(index: Array, *inputs: PyTree) -> PyTree:
            return function(params, picture_keys(key, index), spread, *inputs)

        return in_batches(of_batch, np.arange(count), *inputs, size=self._size)
