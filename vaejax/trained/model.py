"""A trained model as its user meets it: pictures in, pictures out."""

import functools
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

from vaejax.config import FITTED_PRIORS, Config
from vaejax.errors import UserError
from vaejax.likelihoods import build_likelihood
from vaejax.models import EXACT, build_model
from vaejax.models.noise import Keys, picture_keys
from vaejax.priors.fitted import load_prior
from vaejax.runtime.compiling import jit, precise
from vaejax.tasks.vae.evaluation import make_importance_bound
from vaejax.trained import functions
from vaejax.trained.arguments import (
    Groups,
    Latents,
    Temperature,
    as_latents,
    as_temperatures,
    check_count,
    check_fits,
    key_of,
)
from vaejax.trained.batching import in_batches, joined
from vaejax.trained.inputs import PictureLike, Pictures, as_pictures

# The prior that was trained with the model; any other name is one fitted to its codes.
OWN_PRIOR = "model"


class TrainedModel:
    """A VAE with its averaged parameters. Pictures are uint8 [batch, height, width, channel].

    Attributes:
      config: config of the run.
      params: the parameters.
      step: step of the checkpoint.
      model: the Linen module.
      likelihood: its p(x|z).
      workdir: work directory of the run.
      data_fingerprint: fingerprint of the pictures it was trained on.
      digest: digest of the parameters, by which what was made from them knows them again.
    """

    def __init__(
        self,
        config: Config,
        params: dict,
        step: int,
        workdir: Path,
        data_fingerprint: dict,
        digest: int,
    ):
        """Use `vaejax.load`."""
        self.data_fingerprint, self.digest = data_fingerprint, digest
        self.config, self.params, self.step = config, params, step
        self.model, self.likelihood = build_model(config, EXACT), build_likelihood(config)
        self.workdir = workdir

        def compiled(function: Callable, *parts: Any) -> Callable:
            return jit(precise(functools.partial(function, *parts)))

        def bound(samples: int) -> Callable:
            return compiled(make_importance_bound(self.model, self.likelihood, samples))

        self._posterior = compiled(functions.posterior, self.model)
        self._sample_latents = compiled(functions.sample_latents, self.model)
        self._decode, self._sample, self._redraw = (
            compiled(function, self.model, self.likelihood)
            for function in (functions.decode, functions.sample, functions.redraw)
        )
        self._importance_bound = functools.cache(bound)

    def encode(self, images: PictureLike) -> tuple[Latents, Latents]:
        """Mean and standard deviation of q(z|x).

        Those of a ladder's groups, each given the means of all groups above.

        Args:
          images: an array, or whatever else `inputs.as_pictures` takes: lists, paths, PIL pictures.
        """
        images = as_pictures(images, self.config.data)
        return self._in_batches(lambda x: self._posterior(self.params, x), images)

    def sample_posterior(self, images: PictureLike, *, seed: int = 0) -> Latents:
        """Latents z ~ q(z|x) of each picture."""
        return joined(self.posterior_samples(images, seed=seed))

    def posterior_samples(self, images: PictureLike, *, seed: int = 0) -> Iterator[Latents]:
        """The same, batch after batch, for more than memory holds."""
        images = as_pictures(images, self.config.data)
        key = key_of(seed)

        def sample(images: Array, index: Array) -> PyTree:
            return self._posterior(self.params, images, picture_keys(key, index))[0]

        return self._batches(sample, images, np.arange(len(images)))

    def decode(self, z: Latents | PyTree[Array]) -> Pictures:
        """The picture of each z: the mean of p(x|z), rounded.

        Raises:
          UserError: latents of other shapes than this model's.
        """
        return self._in_batches(lambda z: self._decode(self.params, z), self._latents(z))

    def reconstruct(self, images: PictureLike, *, seed: int | None = None) -> Pictures:
        """Each picture encoded and decoded: the posterior's mean or, with a seed, a sample."""
        return joined(self.reconstruct_in_batches(images, seed=seed))

    def reconstruct_in_batches(
        self, images: PictureLike, *, seed: int | None = None
    ) -> Iterator[Pictures]:
        """`reconstruct`, a few at a time: all may not fit in memory."""
        images = as_pictures(images, self.config.data)

        def of_batch(images: Array, index: Array) -> Array:
            keys = () if seed is None else (picture_keys(key_of(seed), index),)
            z, _ = self._posterior(self.params, images, *keys)
            return self._decode(self.params, z)

        return self._batches(of_batch, images, np.arange(len(images)))

    def sample(
        self,
        count: int,
        *,
        seed: int = 0,
        temperature: Temperature = 1.0,
        prior: str = OWN_PRIOR,
    ) -> Pictures:
        """New pictures.

        Args:
          count: how many.
          seed: the same seed gives the same pictures.
          temperature: scales the spread of the prior's noise; lower is safer and duller. Of a
            ladder also one for each of its resolutions, or for each of its groups, coarsest
            first.
          prior: `model`, or the name of one fitted by `python -m vaejax.fit`.
        """
        check_count(count)
        check_fits(count, math.prod(self.config.data.shape))
        return joined(
            self.sample_in_batches(count, seed=seed, temperature=temperature, prior=prior)
        )

    def sample_in_batches(
        self,
        count: int,
        *,
        seed: int = 0,
        temperature: Temperature = 1.0,
        prior: str = OWN_PRIOR,
    ) -> Iterator[Pictures]:
        """`sample`, a few at a time: all may not fit in memory."""
        if prior == OWN_PRIOR:
            return self._drawn(self._sample, count, seed, temperature)
        codes = self.sample_codes(count, seed=seed, temperature=temperature, prior=prior)
        return self._batches(lambda z: self._decode(self.params, z), codes)

    def sample_codes(
        self,
        count: int,
        *,
        seed: int = 0,
        temperature: Temperature = 1.0,
        prior: str = OWN_PRIOR,
    ) -> Latents:
        """The latents that `sample` shows."""
        if prior == OWN_PRIOR:
            return joined(self._drawn(self._sample_latents, count, seed, temperature))
        fitted, temperature = (
            self.fitted_prior(prior),
            float(as_temperatures(temperature, self.model.resolutions())),
        )
        check_count(count)
        # All at once, since a prior that was fitted has no noise of its own for each picture.
        check_fits(count, 4 * (self.model.code_size() or 0))
        return np.asarray(fitted.sample(key_of(seed), count, temperature))

    def redraw(
        self,
        z: Latents,
        *,
        keep: Bool[np.ndarray, "group"],
        seed: int = 0,
        temperature: Temperature = 1.0,
    ) -> tuple[Pictures, Groups]:
        """Pictures from some groups of a ladder and new latents in place of the others.

        Args:
          z: latents, such as those of `encode` or `sample_posterior`.
          keep: whether each group stays, from the top; the others are drawn from their prior
            given all groups above.
          seed: seed of what is drawn.
          temperature: as in `sample`.

        Returns:
          The pictures and all their latents.

        Raises:
          UserError: the model is no ladder, `keep` is not one for each of its groups, or `z` are
            of other shapes than its latents.
        """
        groups = len(self.model.resolutions())
        if not groups:
            raise UserError("redraw: this model has one flat z, and no groups to choose from")
        if np.shape(keep) != (groups,):
            raise UserError(f"keep has the shape {np.shape(keep)}; name {groups}, one of a group")

        z = self._latents(z)

        def of_batch(params: dict, keys: Keys, temperature: np.ndarray, z: PyTree) -> PyTree:
            return self._redraw(params, z, jnp.asarray(keep), keys, temperature)

        return joined(self._drawn(of_batch, len(z[0]), seed, temperature, z))

    def _drawn(
        self, function: Callable, count: int, seed: int, temperature: Temperature, *inputs: PyTree
    ) -> Iterator[PyTree]:
        """`function(params, keys, temperature, *inputs)` of `count` pictures, in batches."""
        check_count(count)
        spread, key = as_temperatures(temperature, self.model.resolutions()), key_of(seed)

        def of_batch(index: Array, *inputs: PyTree) -> PyTree:
            return function(self.params, picture_keys(key, index), spread, *inputs)

        return self._batches(of_batch, np.arange(count), *inputs)

    def log_likelihood(
        self, images: PictureLike, *, samples: int = 64, seed: int = 0
    ) -> Float[np.ndarray, "batch"]:
        """The importance-weighted bound of log p(x) in nats, with `samples` codes a picture."""
        images = as_pictures(images, self.config.data)
        check_count(samples, "samples")
        bound, key = self._importance_bound(samples), key_of(seed)
        return self._in_batches(
            lambda x, index: bound(self.params, x, index, key), images, np.arange(len(images))
        )

    def fitted_prior(self, name: str):
        """The prior of that name that was fitted to this checkpoint's codes.

        Raises:
          UserError: it was not fitted, or to another checkpoint.
        """
        if self.config.model.has_groups:
            raise UserError(
                f"prior {name!r}: no prior is fitted to a ladder, whose groups' priors are trained "
                f"with it; name {OWN_PRIOR}"
            )
        if name not in FITTED_PRIORS:
            known = ", ".join((OWN_PRIOR, *FITTED_PRIORS))
            raise UserError(f"prior {name!r} is none of {known}; name one of them")
        path = self.prior_path(name)
        remedy = (
            f"run python -m vaejax.fit --workdir={self.workdir} --prior={name} "
            f"--checkpoint={self.step}"
        )
        if not path.exists():
            raise UserError(f"no prior {name!r} was fitted in {self.workdir}; {remedy}")
        prior, meta = load_prior(path)
        if meta["step"] != self.step:
            raise UserError(
                f"the prior {name!r} was fitted to the codes of step {meta['step']}, but this is "
                f"step {self.step}; {remedy}"
            )
        # A step alone does not tell one run from another in the same place.
        if (meta.get("model"), meta.get("data")) != (self.digest, self.data_fingerprint):
            raise UserError(
                f"the prior {name!r} in {self.workdir} was fitted to the codes of another model or "
                f"other data than this, or by version 0.1, which did not say; {remedy}"
            )
        return prior

    def prior_path(self, name: str) -> Path:
        """Where the fitted prior of that name is kept."""
        return self.workdir / "priors" / f"{name}.npz"

    def _in_batches(self, function: Callable, *inputs: PyTree) -> PyTree:
        """`function` of all inputs, which goes through them in batches."""
        return joined(self._batches(function, *inputs))

    def _batches(self, function: Callable, *inputs: PyTree) -> Iterator[PyTree]:
        return in_batches(function, *inputs, size=self.config.eval.batch_size)

    def _latents(self, z: Latents | PyTree[Array]) -> Latents:
        picture = jax.ShapeDtypeStruct((1, *self.config.data.shape), np.uint8)
        expected, _ = jax.eval_shape(self._posterior, self.params, picture)
        return as_latents(z, expected)
