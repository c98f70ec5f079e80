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
from vaejax.models.noise import picture_keys
from vaejax.runtime.compiling import jit, precise
from vaejax.runtime.mesh import replicated, split_batch, to_devices
from vaejax.tasks.vae.evidence import Sums, evidence, evidence_from, sums_of
from vaejax.tasks.vae.evidence import summarize as evidence_summary

# The seed of evaluations, so that their noise differs from that of training steps.
EVALUATION_SEED = 2**31 - 1


class Totals(NamedTuple):
    """Sums over the evaluated pictures.

    Attributes:
      sums: the ELBO's terms. Unlike in training, `squared_error` is that of the reconstruction
        from the posterior mean, and compares all 8 bits, as `psnr` does.
      elbo_squared: the squared ELBO, nats², for its standard error.
      importance: the importance-weighted bound, nats; 0 if it was not computed.
      psnr, ssim: PSNR in dB, at most 100 for each picture, and SSIM of the reconstruction from the
        posterior mean.
    """

    sums: Sums
    elbo_squared: Float[Array, ""]
    importance: Float[Array, ""]
    psnr: Float[Array, ""]
    ssim: Float[Array, ""]


LogPrior = Callable[[Float[Array, "batch latent"]], Float[Array, "batch"]]
EvalStep = Callable[[dict, Images, Array, Array], Totals]


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
    prior: LogPrior | None = None,
) -> EvalStep:
    """Returns a jitted function (params, images, index, mask) -> `Totals` of one batch.

    The noise of a picture is a function of its index, so results do not depend on the batches or
    the devices. Everything, including matrix products, is computed in float32: in bfloat16 a
    model's figures would be worse.

    Args:
      config: config of the run.
      mesh: mesh of the devices.
      importance_samples: K of the importance-weighted bound; 0 leaves it out.
      prior: log p(z) in nats of a fitted prior that replaces the model's own.
    """
    model, likelihood = build_model(config, EXACT), build_likelihood(config)
    root = jax.random.key(EVALUATION_SEED)
    how: dict[str, Any] = {} if prior is None else {"log_prior": prior}
    bound = make_importance_bound(model, likelihood, importance_samples, **how)

    @precise
    def step(params: dict, images: Images, index: Array, mask: Bool[Array, "batch"]) -> Totals:
        terms = evidence(model, params, likelihood, images, picture_keys(root, index), **how)
        importance = jnp.zeros_like(terms.log_likelihood)
        if importance_samples:
            importance = bound(params, images, index, root)
        reconstruction = model.apply({"params": params}, images, method="reconstruct")
        shown = to_picture(likelihood, reconstruction)
        sums = sums_of(terms, likelihood, images, mask.astype(jnp.float32))
        difference = (images.astype(jnp.float32) - shown.astype(jnp.float32)) / 255.0
        squared = jnp.mean(difference**2, axis=(1, 2, 3))
        elbo = terms.elbo()

        def total(values: Float[Array, "batch"]) -> Float[Array, ""]:
            return jnp.sum(jnp.where(mask, values, jnp.zeros_like(values)))

        return Totals(
            sums=sums._replace(squared_error=total(squared)),
            elbo_squared=total(elbo**2),
            importance=total(importance),
            # The PSNR of an exact match is infinite, and so would be the mean.
            psnr=total(jnp.minimum(psnr(images, shown), 100.0)),
            ssim=total(ssim(images, shown)),
        )

    everywhere, split = replicated(mesh), split_batch(mesh)
    shardings = (everywhere, split, split, split)
    return jit(step, mesh=mesh, in_shardings=shardings, out_shardings=everywhere)


def evaluate(
    eval_step: EvalStep, params: dict, batches: Iterable[dict[str, np.ndarray]], mesh: Mesh
) -> Totals | None:
    """Sums `eval_step` over batches, in float64 on the host.

    Args:
      eval_step: what `make_eval_step` returns.
      params: parameters of the model, whole on every device.
      batches: what `data.feed.pipeline.eval_batches` yields.
      mesh: mesh of the devices, as given to `make_eval_step`.

    Returns:
      The sums; None if there are no batches.
    """
    totals = None
    for batch in batches:
        arrays = to_devices(batch, split_batch(mesh))
        one = eval_step(params, arrays["image"], arrays["index"], arrays["mask"])
        # Fetched batch by batch and added in float64: the sum over 20,000 pictures of 40,000 nats
        # each would leave float32 no digits for the differences that matter.
        one = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), jax.device_get(one))
        totals = one if totals is None else jax.tree.map(np.add, totals, one)
    return totals


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
    ) -> Totals | None:
        """Sums over the batches; returns None if there are none.

        Args:
          params: parameters of the run's only network by name, whole on every device.
          batches: what `data.feed.pipeline.eval_batches` yields.
        """
        (vae,) = params.values()
        return evaluate(self._step, vae, batches, self._mesh)

    def summarize(self, totals: Totals) -> dict[str, float]:
        """Computes the metrics from the sums, see `summarize` of this module."""
        return summarize(totals, self._model, self._config)


def summarize(
    totals: Totals, model: nn.Module, config: Config, importance_samples: int = 0
) -> dict[str, float]:
    """Computes the metrics of an evaluation: those of `evidence.summarize`, and more.

    Args:
      totals: sums over at least one picture.
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
    count = float(totals.sums.count)
    values = evidence_summary(totals.sums, dimensions, config.objective.beta)
    variance = max(float(totals.elbo_squared) / count - values["elbo_nats"] ** 2, 0.0)
    error = -objectives.bits_per_dim(math.sqrt(variance / count), dimensions)
    values |= {
        "pictures": count,
        "elbo_bits_per_dim_standard_error": error,
        "psnr": float(totals.psnr) / count,
        "ssim": float(totals.ssim) / count,
    }
    for resolution, kl in zip(model.resolutions(), totals.sums.kl):
        name = f"kl_{resolution}_bits_per_dim"
        bits = objectives.bits_per_dim(float(kl) / count, dimensions)
        values[name] = values.get(name, 0.0) - bits
    if importance_samples:
        bound = float(totals.importance) / count
        values["importance_nats"] = bound
        values["importance_bits_per_dim"] = objectives.bits_per_dim(bound, dimensions)
    return values
