"""Evaluates likelihood and reconstruction over a set of pictures, each counted once."""

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from vaejax import objectives
from vaejax.config import Config
from vaejax.likelihoods import Images, Likelihood, build_likelihood, to_picture
from vaejax.metrics.image import psnr, ssim
from vaejax.models import EXACT, build_model
from vaejax.models.finished import picture_model
from vaejax.models.noise import picture_keys
from vaejax.priors.density import LogProb
from vaejax.runtime.compiling import jit, precise
from vaejax.runtime.mesh import replicated, split_batch, to_devices
from vaejax.tasks.vae.evidence import Sums, evidence, evidence_from, sums_of
from vaejax.tasks.vae.evidence import summarize as evidence_summary

# The seed of evaluations, so that their noise differs from that of training steps.
EVALUATION_SEED = 2**31 - 1


class PerPicture(NamedTuple):
    """What was measured of each picture.

    Attributes:
      index: the number of the picture in its split.
      elbo: the evidence lower bound with one sample of z, nats.
      importance: the importance-weighted bound, nats; 0 if it was not computed.
      psnr, ssim: PSNR in dB, at most 100, and SSIM of the reconstruction from the posterior mean.
    """

    # It hides the method `tuple.index`, which nobody calls.
    index: Int[Array, "picture"] | Int[np.ndarray, "picture"]  # type: ignore[assignment]
    elbo: Float[Array, "picture"] | Float[np.ndarray, "picture"]
    importance: Float[Array, "picture"] | Float[np.ndarray, "picture"]
    psnr: Float[Array, "picture"] | Float[np.ndarray, "picture"]
    ssim: Float[Array, "picture"] | Float[np.ndarray, "picture"]


class Evaluation(NamedTuple):
    """What was measured of a set of pictures, each counted once.

    Attributes:
      sums: sums of the ELBO's terms. Unlike in training, `squared_error` is that of the
        reconstruction from the posterior mean, and compares all 8 bits, as `psnr` does.
      pictures: the measurements of each picture.
    """

    sums: Sums
    pictures: PerPicture


EvalStep = Callable[[dict, dict, Images, Array, Array], tuple[Evaluation, Bool[Array, "batch"]]]


def make_importance_bound(
    model: nn.Module, likelihood: Likelihood, samples: int, **how: Any
) -> Callable[..., Float[Array, "batch"]]:
    """Returns a function that computes the importance-weighted bound of log p(x) in nats.

    The function maps (params, images, index, key) to one number for each picture (Burda et al.
    2016, eq. 8). `index` numbers the pictures, so that each has noise of its own.

    Args:
      model: what `models.build_model` returns.
      likelihood: p(x|z).
      samples: K, the number of samples of z for each picture.
      **how: further keyword arguments of the model's `infer`.
    """

    def bound(params: dict, images: Images, index: Array, key: PRNGKeyArray) -> Array:
        features = model.apply({"params": params}, images, method="features")

        def log_weight(sample: Int[Array, ""]) -> Float[Array, "batch"]:
            keys = picture_keys(key, index, sample)
            terms = evidence_from(model, params, likelihood, images, features, keys, **how)
            return terms.log_weight()

        # One sample at a time: K samples at once would need K times the memory.
        weights = jax.lax.map(log_weight, jnp.arange(1, samples + 1))
        return objectives.importance_bound(weights)

    return bound


def make_eval_step(
    config: Config,
    mesh: Mesh,
    *,
    importance_samples: int = 0,
    prior: LogProb | None = None,
    finished: bool = False,
) -> EvalStep:
    """Returns a jitted function of a batch that returns (`Evaluation`, mask).

    Its arguments are the parameters of the model, those of the model that draws pictures (the same
    unless `finished`), pictures, their numbers, and which of them count.

    The noise of a picture is a function of its index, so results do not depend on the batches or
    the devices. Everything, including matrix products, is computed in float32: in bfloat16 a
    model's figures would be worse.

    Args:
      config: config of the run.
      mesh: mesh of the devices.
      importance_samples: K of the importance-weighted bound; 0 leaves it out.
      prior: log p(z) of a fitted prior that replaces the model's own.
      finished: whether a `FinishedVAE` draws the reconstructions.
    """
    model, likelihood = build_model(config, EXACT), build_likelihood(config)
    drawing, pictured = picture_model(config, finished=finished, dtype=EXACT)
    root = jax.random.key(EVALUATION_SEED)
    how: dict[str, Any] = {} if prior is None else {"log_prior": prior}
    bound = make_importance_bound(model, likelihood, importance_samples, **how)

    @precise
    def step(
        params: dict, drawn: dict, images: Images, index: Array, mask: Bool[Array, "batch"]
    ) -> tuple[Evaluation, Bool[Array, "batch"]]:
        terms = evidence(model, params, likelihood, images, picture_keys(root, index), **how)
        importance = jnp.zeros_like(terms.log_likelihood)
        if importance_samples:
            importance = bound(params, images, index, root)
        reconstruction = drawing.apply({"params": drawn}, images, method="reconstruct")
        shown = to_picture(pictured, reconstruction)
        sums = sums_of(terms, likelihood, images, mask.astype(jnp.float32))
        difference = (images.astype(jnp.float32) - shown.astype(jnp.float32)) / 255.0
        squared = jnp.mean(difference**2, axis=(1, 2, 3))
        pictures = PerPicture(
            index=index,
            elbo=terms.elbo(),
            importance=importance,
            # The PSNR of an exact match is infinite, and so would be the mean.
            psnr=jnp.minimum(psnr(images, shown), 100.0),
            ssim=ssim(images, shown),
        )
        error = jnp.sum(jnp.where(mask, squared, jnp.zeros_like(squared)))
        return Evaluation(sums._replace(squared_error=error), pictures), mask

    everywhere, split = replicated(mesh), split_batch(mesh)
    shardings = (everywhere, everywhere, split, split, split)
    return jit(step, mesh=mesh, in_shardings=shardings, out_shardings=everywhere)


def evaluate(
    eval_step: EvalStep,
    params: dict,
    batches: Iterable[dict[str, np.ndarray]],
    mesh: Mesh,
    *,
    drawn: dict | None = None,
) -> Evaluation | None:
    """Applies `eval_step` to batches, and collects the results in float64 on the host.

    Args:
      eval_step: what `make_eval_step` returns.
      params: parameters of the model, whole on every device.
      batches: what `data.feed.pipeline.eval_batches` yields.
      mesh: mesh of the devices, as given to `make_eval_step`.
      drawn: parameters of the finished model that draws the reconstructions, whole on every device;
        None if the model itself does.

    Returns:
      The sums, and what was measured of each picture; None if there are no batches.
    """
    sums, pictures = None, []
    for batch in batches:
        arrays = to_devices(batch, split_batch(mesh))
        results = eval_step(
            params, drawn or params, arrays["image"], arrays["index"], arrays["mask"]
        )
        # Fetched batch by batch and added in float64: the sum over 20,000 pictures of 40,000 nats
        # each would leave float32 no digits for the differences that matter.
        one, mask = jax.device_get(results)
        exact = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), one.sums)
        sums = exact if sums is None else jax.tree.map(np.add, sums, exact)
        pictures.append([np.asarray(values)[mask] for values in one.pictures])
    if sums is None:
        return None
    return Evaluation(sums, PerPicture(*map(np.concatenate, zip(*pictures))))


class Evaluator:
    """Evaluates a model during training."""

    def __init__(self, config: Config, model: nn.Module, mesh: Mesh):
        """Compiles on the first call.

        Args:
          config: config of the run.
          model: the model, for `summarize`; evaluations use a float32 one built from `config`.
          mesh: mesh of the devices.
        """
        self._config, self._model, self._mesh = config, model, mesh
        self._step = make_eval_step(config, mesh)

    def __call__(
        self, params: dict[str, dict], batches: Iterable[dict[str, np.ndarray]]
    ) -> Evaluation | None:
        """Evaluates the batches; returns None if there are none.

        Args:
          params: parameters of the run's only network by name, whole on every device.
          batches: what `data.feed.pipeline.eval_batches` yields.
        """
        (vae,) = params.values()
        return evaluate(self._step, vae, batches, self._mesh)

    def summarize(self, evaluation: Evaluation) -> dict[str, float]:
        """Computes the metrics of an evaluation, see `summarize` of this module."""
        return summarize(evaluation, self._model, self._config)


def summarize(
    evaluation: Evaluation, model: nn.Module, config: Config, importance_samples: int = 0
) -> dict[str, float]:
    """Computes the metrics of an evaluation: those of `evidence.summarize`, and more.

    Args:
      evaluation: of at least one picture.
      model: the model; its `resolutions` name the groups of a ladder.
      config: config of the run.
      importance_samples: K of the importance-weighted bound; 0 leaves it out.

    Returns:
      The metrics of `evidence.summarize`; `pictures`, their number; the standard error of the ELBO
      in bits/dim; `psnr` (dB) and `ssim` of the decoded posterior mean, rounded to 8 bits, as means
      over pictures; for a ladder, the KL of each resolution in bits/dim; and with
      `importance_samples`, the importance-weighted bound in nats and bits/dim.
    """
    dimensions = math.prod(config.data.shape)
    sums, pictures = evaluation
    count = float(sums.count)
    values = evidence_summary(sums, dimensions, config.objective.beta)
    error = float(np.std(pictures.elbo, dtype=np.float64)) / math.sqrt(count)
    values |= {
        "pictures": count,
        "elbo_bits_per_dim_standard_error": -objectives.bits_per_dim(error, dimensions),
        "psnr": _mean(pictures.psnr),
        "ssim": _mean(pictures.ssim),
    }
    for resolution, kl in zip(model.resolutions(), sums.kl):
        name = f"kl_{resolution}_bits_per_dim"
        bits = objectives.bits_per_dim(float(kl) / count, dimensions)
        values[name] = values.get(name, 0.0) - bits
    if importance_samples:
        bound = _mean(pictures.importance)
        values["importance_nats"] = bound
        values["importance_bits_per_dim"] = objectives.bits_per_dim(bound, dimensions)
    return values


def _mean(values: Float[Array, "picture"] | Float[np.ndarray, "picture"]) -> float:
    return float(np.mean(values, dtype=np.float64))
