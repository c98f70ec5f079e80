"""`TrainedModel`, the user's interface to a trained VAE: pictures in, pictures out."""

import functools
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Unpack

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

from vaejax.config import Config
from vaejax.errors import UserError
from vaejax.likelihoods import build_likelihood
from vaejax.models import EXACT, build_model
from vaejax.models.finished import finished_params, picture_model
from vaejax.models.noise import picture_keys
from vaejax.priors.fitted import FittedPrior
from vaejax.priors.labels import Given
from vaejax.runtime.compiling import jit, precise
from vaejax.tasks.vae import functions
from vaejax.tasks.vae.evaluation import make_importance_bound
from vaejax.trained.arguments import (
    Groups,
    Latents,
    Sampling,
    Temperature,
    as_latents,
    check_count,
    check_fits,
    conditioned,
    key_of,
)
from vaejax.trained.batching import in_batches, joined
from vaejax.trained.decoder_files import FinishedDecoder
from vaejax.trained.inputs import PictureLike, Pictures, as_pictures
from vaejax.trained.prior_files import OWN_PRIOR, Origin, load_fitted
from vaejax.trained.sampler import Sampler

# The only prior that can learn labels.
_LABELLED = "flow_matching"


class TrainedModel:
    """A VAE with its averaged parameters, as `vaejax.load` returns it.

    Pictures are uint8 [batch, height, width, channel]. All results are computed in float32 and are
    NumPy arrays. Methods that take pictures accept whatever `inputs.as_pictures` does (arrays, PIL
    images, paths, lists of these) and raise UserError for anything else.

    Attributes:
      config: config of the run.
      params: the averaged parameters, float32, as the ELBO has trained them: codes and likelihoods
        are theirs.
      finished: the decoder that was trained on after the model; None if there is none.
      picture_params: the parameters that draw pictures: of the finished model, if there is one.
      prior: name of the prior that samples come from unless another is named: `model`, or the one
        whose samples the finished decoder has learned to decode.
      temperature: the temperatures that were fitted to a ladder, at which its own prior is sampled
        unless others are named; None if none were, which is as 1.
      step: step of the checkpoint, the number of updates.
      model: the Linen module, `VAE` or `Ladder`.
      likelihood: p(x|z).
      workdir: work directory of the run.
      data_fingerprint: fingerprint of the data of the training.
      digest: a number computed from `params`, which identifies them in what is derived from them,
        such as fitted priors.
    """

    def __init__(
        self,
        config: Config,
        params: dict,
        step: int,
        workdir: Path,
        data_fingerprint: dict,
        digest: int,
        finished: FinishedDecoder | None = None,
        temperature: Temperature | None = None,
    ):
        """Use `vaejax.load` instead of this constructor."""
        self.finished, self.temperature = finished, temperature
        self.picture_params = finished_params(params, finished.params) if finished else params
        self.prior = finished.prior if finished else OWN_PRIOR
        self.data_fingerprint, self.digest = data_fingerprint, digest
        self.config, self.params, self.step, self.workdir = config, params, step, workdir
        self.model, self.likelihood = build_model(config, EXACT), build_likelihood(config)

        def compiled(function: Callable, *parts: Any) -> Callable:
            return jit(precise(functools.partial(function, *parts)))

        def bound(samples: int) -> Callable:
            return compiled(make_importance_bound(self.model, self.likelihood, samples))

        self._posterior = compiled(functions.posterior, self.model)
        self._importance_bound = functools.cache(bound)
        drawing = picture_model(config, finished=finished is not None, dtype=EXACT)
        self._sampler = Sampler(
            self.model, params, drawing, self.picture_params, config.eval.batch_size
        )

    def encode(self, images: PictureLike) -> tuple[Latents, Latents]:
        """Computes the mean and the standard deviation of q(z|x).

        Args:
          images: the pictures.

        Returns:
          Two arrays [batch, latent], where a map of latents (`config.latent_shape`: rows, columns,
          channels) is flat, row by row; for a ladder two tuples with one array [batch, group, row,
          column, channel] for each resolution, coarsest first, each group given the means of all
          groups above.
        """
        images = as_pictures(images, self.config.data)
        return self._in_batches(lambda x: self._posterior(self.params, x), images)

    def sample_posterior(self, images: PictureLike, *, seed: int = 0) -> Latents:
        """Samples latents z ~ q(z|x) for each picture.

        Args:
          images: the pictures.
          seed: seed of the noise, an integer in [0, 2^32).
        """
        return joined(self.posterior_samples(images, seed=seed))

    def posterior_samples(self, images: PictureLike, *, seed: int = 0) -> Iterator[Latents]:
        """Does the same as `sample_posterior`, and yields the latents in batches to save memory."""
        images = as_pictures(images, self.config.data)
        key = key_of(seed)

        def sample(images: Array, index: Array) -> PyTree:
            return self._posterior(self.params, images, picture_keys(key, index))[0]

        return self._batches(sample, images, np.arange(len(images)))

    def decode(self, z: Latents | PyTree[Array]) -> Pictures:
        """Decodes latents to pictures: the mean of p(x|z), rounded.

        Args:
          z: latents, as `encode` or `sample_codes` returns them.

        Raises:
          UserError: the latents do not have this model's shapes, or are not finite.
        """
        return self._in_batches(self._sampler.decode, self._latents(z))

    def reconstruct(self, images: PictureLike, *, seed: int | None = None) -> Pictures:
        """Encodes and decodes each picture.

        Args:
          images: the pictures.
          seed: seed with which latents are sampled from q(z|x); None decodes the posterior means.
        """
        return joined(self.reconstruct_in_batches(images, seed=seed))

    def reconstruct_in_batches(
        self, images: PictureLike, *, seed: int | None = None
    ) -> Iterator[Pictures]:
        """Does the same as `reconstruct`, and yields the pictures in batches to save memory."""
        images = as_pictures(images, self.config.data)

        def of_batch(images: Array, index: Array) -> Array:
            keys = () if seed is None else (picture_keys(key_of(seed), index),)
            z, _ = self._posterior(self.params, images, *keys)
            return self._sampler.decode(z)

        return self._batches(of_batch, images, np.arange(len(images)))

    def sample(
        self,
        count: int,
        *,
        seed: int = 0,
        temperature: Temperature | None = None,
        prior: str | None = None,
        labels: Given | None = None,
        guidance: float = 1.0,
    ) -> Pictures:
        """Samples new pictures: the mean of p(x|z), rounded, for z from the prior.

        Args:
          count: number of pictures, at least 1.
          seed: an integer in [0, 2^32); the same seed gives the same pictures.
          temperature: standard deviation of the prior's noise, at least 0; lower values give more
            typical and less varied pictures. For a ladder also one for each of its resolutions or
            for each of its groups, coarsest first. None for 1, or for the attribute `temperature`.
          prior: `model`, or the name of a prior that `python -m vaejax.fit` has fitted; None for
            the attribute `prior`, or with labels for `flow_matching`.
          labels: values of some labels on which the prior is conditioned, by name, such as
            `{"Smiling": 1}`. It must have been trained with them (`config.flow.labels`).
          guidance: only with labels: how strongly samples are drawn towards them, from 0 to 100; 1
            samples p(z | labels). More shows them more clearly, and pictures vary less.

        Raises:
          UserError: an argument is out of its range, the pictures do not fit into memory, or the
            prior was not fitted to this checkpoint, or without such labels.
        """
        check_count(count)
        check_fits(count, math.prod(self.config.data.shape))
        return joined(
            self.sample_in_batches(
                count,
                seed=seed,
                temperature=temperature,
                prior=prior,
                labels=labels,
                guidance=guidance,
            )
        )

    def sample_in_batches(self, count: int, **options: Unpack[Sampling]) -> Iterator[Pictures]:
        """Does the same as `sample`, and yields the pictures in batches to save memory."""
        fitted, seed, temperature = self._source(**options)
        if fitted is not None:
            self._check_codes_fit(count)
        return self._sampler.pictures(fitted, count, seed, temperature)

    def sample_codes(self, count: int, **options: Unpack[Sampling]) -> Latents:
        """Samples the latents that `sample` decodes; arguments and errors as for `sample`."""
        return joined(self.sample_codes_in_batches(count, **options))

    def sample_codes_in_batches(self, count: int, **options: Unpack[Sampling]) -> Iterator[Latents]:
        """Does the same as `sample_codes`, and yields the latents in batches."""
        self._check_codes_fit(count)
        fitted, seed, temperature = self._source(**options)
        return self._sampler.codes(fitted, count, seed, temperature)

    def redraw(
        self,
        z: Latents,
        *,
        keep: Bool[np.ndarray, "group"],
        seed: int = 0,
        temperature: Temperature | None = None,
    ) -> tuple[Pictures, Groups]:
        """Keeps the latents of some groups of a ladder, samples the others, and decodes.

        Args:
          z: latents, such as those of `encode` or `sample_posterior`.
          keep: whether to keep each group's latents, from the top; the other groups are sampled
            from their prior given all groups above.
          seed: seed of the prior's noise, an integer in [0, 2^32).
          temperature: as in `sample`.

        Returns:
          The pictures, and the latents of all groups.

        Raises:
          UserError: the model is not a ladder, `keep` does not have one entry for each of its
            groups, or `z` does not have the shapes of its latents.
        """
        groups = len(self.model.resolutions())
        if not groups:
            raise UserError("redraw: this model's latents are one array, and no groups")
        if np.shape(keep) != (groups,):
            raise UserError(
                f"keep has the shape {np.shape(keep)}; it must be ({groups},), one entry per group"
            )

        temperature = self.default_temperature(OWN_PRIOR) if temperature is None else temperature
        return joined(self._sampler.redrawn(self._latents(z), keep, seed, temperature))

    def log_likelihood(
        self, images: PictureLike, *, samples: int = 64, seed: int = 0
    ) -> Float[np.ndarray, "batch"]:
        """Computes the importance-weighted lower bound of log p(x) in nats (Burda et al. 2016).

        Args:
          images: the pictures.
          samples: K, the number of samples of z for each picture, at least 1. The bound gets
            tighter with K; K = 1 is the ELBO with one sample.
          seed: seed of the noise, an integer in [0, 2^32).
        """
        images = as_pictures(images, self.config.data)
        check_count(samples, "samples")
        bound, key = self._importance_bound(samples), key_of(seed)
        return self._in_batches(
            lambda x, index: bound(self.params, x, index, key), images, np.arange(len(images))
        )

    def fitted_prior(self, name: str) -> FittedPrior:
        """Loads a prior that was fitted to the codes of this checkpoint.

        Args:
          name: one of `config.FITTED_PRIORS`.

        Raises:
          UserError: the model is a ladder, the name is unknown, or the prior was not fitted, was
            fitted to another checkpoint or other data, or its file is damaged.
        """
        if self.config.model.has_groups:
            raise UserError(
                f"prior {name!r}: no prior is fitted to a ladder, whose groups' priors are trained "
                f"with it; name {OWN_PRIOR}"
            )
        return load_fitted(self.origin, name)

    def _check_labelled(self, labels: Given) -> None:
        """Raises UserError, with what to do, if no prior that learns labels was trained."""
        if self.origin.path(_LABELLED).exists():
            return
        asked, flags = ",".join(labels), f"--config.prior.fitted={_LABELLED}"
        if not labels.keys() <= set(self.config.flow.labels):
            flags += f" --config.flow.labels={asked}"
        raise UserError(
            f"labels={asked}: no prior {_LABELLED} was trained in {self.workdir}; run its training "
            f"again with {flags}"
        )

    def default_temperature(self, prior: str) -> Temperature:
        """Returns the temperature at which a prior is sampled unless another is named.

        Args:
          prior: `model`, or the name of a fitted prior.
        """
        return 1.0 if self.temperature is None or prior != OWN_PRIOR else self.temperature

    def _source(
        self,
        *,
        seed: int = 0,
        temperature: Temperature | None = None,
        prior: str | None = None,
        labels: Given | None = None,
        guidance: float = 1.0,
    ) -> tuple[FittedPrior | None, int, Temperature]:
        """Loads the prior that is sampled, given the labels; None for the model's own."""
        name = prior or (_LABELLED if labels else self.prior)
        if labels and name == _LABELLED and not self.config.model.has_groups:
            self._check_labelled(labels)
        fitted = None if name == OWN_PRIOR else self.fitted_prior(name)
        temperature = self.default_temperature(name) if temperature is None else temperature
        return conditioned(fitted, labels, guidance), seed, temperature

    @property
    def origin(self) -> Origin:
        """The checkpoint of this model, as the files that are derived from it record it."""
        return Origin(self.workdir, self.step, self.digest, self.data_fingerprint)

    def _in_batches(self, function: Callable, *inputs: PyTree) -> PyTree:
        """Applies `function` to all inputs in batches, and concatenates the outputs."""
        return joined(self._batches(function, *inputs))

    def _batches(self, function: Callable, *inputs: PyTree) -> Iterator[PyTree]:
        return in_batches(function, *inputs, size=self.config.eval.batch_size)

    def _check_codes_fit(self, count: int) -> None:
        """Raises UserError if `count` is no number of pictures, or their codes do not fit."""
        check_count(count)
        leaves = jax.tree.leaves(self._latent_shapes())
        check_fits(count, sum(4 * math.prod(leaf.shape[1:]) for leaf in leaves))

    def _latents(self, z: Latents | PyTree[Array]) -> Latents:
        return as_latents(z, self._latent_shapes())

    def _latent_shapes(self) -> PyTree[jax.ShapeDtypeStruct]:
        """The shapes of the latents of one picture; the first axis is the batch."""
        picture = jax.ShapeDtypeStruct((1, *self.config.data.shape), np.uint8)
        return jax.eval_shape(self._posterior, self.params, picture)[0]
