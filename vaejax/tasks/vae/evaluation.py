"""Likelihood and reconstruction of a set of pictures, each counted once."""

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

# Noise of evaluations, apart from that of any training seed's first steps.
EVALUATION_SEED = 2**31 - 1


class Totals(NamedTuple):
    """Sums over the evaluated pictures.

    Attributes:
      sums: the ELBO's terms, summed. Their squared error is that of the posterior mean's
        reconstruction, and from all 8 bits, as `psnr` is.
      elbo_squared: for the standard error.
      importance: sums of the importance-weighted bound, nats.
      psnr, ssim: of the posterior mean's reconstruction.
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
    """(params, images, index, key) -> the importance-weighted bound of log p(x), nats.

    Args:
      model: what `models.build_model` returns.
      likelihood: p(x|z).
      samples: K codes for each picture.
      **how: what the model's `infer` takes beside pictures and keys.
    """

    def bound(params: dict, images: Images, index: Array, key: PRNGKeyArray) -> Array:
        features = model.apply({"params": params}, images, method="features")

        def log_weight(sample: Int[Array, ""]) -> Float[Array, "batch"]:
            keys = picture_keys(key, index, sample)
            terms = evidence_from(model, params, likelihood, images, features, keys, **how)
            return terms.log_weight()

        # One sample at a time: K of them at once would be K times the memory.
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
    """Compiles lazily: (params, images, index, mask) -> `Totals` of one batch.

    A picture's noise is drawn by its index, so results do not depend on batches or devices.
    Everything is float32, matrix products as well: a bfloat16 model's figures would be worse.

    Args:
      config: config of its run.
      mesh: the devices.
      importance_samples: K of the importance-weighted bound; 0 leaves it out.
      prior: log p(z) of a fitted prior in place of the model's own.
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
            # A picture matched exactly would make the mean infinite.
            psnr=total(jnp.minimum(psnr(images, shown), 100.0)),
            ssim=total(ssim(images, shown)),
        )

    everywhere, split = replicated(mesh), split_batch(mesh)
    shardings = (everywhere, split, split, split)
    return jit(step, mesh=mesh, in_shardings=shardings, out_shardings=everywhere)


def evaluate(
    eval_step: EvalStep, params: dict, batches: Iterable[dict[str, np.ndarray]], mesh: Mesh
) -> Totals | None:
    """Adds up `eval_step` over `data.pipeline.eval_batches`; None if there are none."""
    totals = None
    for batch in batches:
        arrays = to_devices(batch, split_batch(mesh))
        one = eval_step(params, arrays["image"], arrays["index"], arrays["mask"])
        # Fetched batch by batch and added in float64: 20,000 pictures of 40,000 nats each
        # leave float32 no digits for the differences that matter.
        one = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), jax.device_get(one))
        totals = one if totals is None else jax.tree.map(np.add, totals, one)
    return totals


class Evaluator:
    """Evaluates a model under training."""

    def __init__(self, config: Config, model: nn.Module, mesh: Mesh):
        """Compiles lazily; arguments as `make_eval_step` has them."""
        self._config, self._model, self._mesh = config, model, mesh
        self._step = make_eval_step(config, mesh)

    def __call__(
        self, params: dict[str, dict], batches: Iterable[dict[str, np.ndarray]]
    ) -> Totals | None:
        """Sums over the batches; None if there are none.

        Args:
          params: parameters of the run's networks, whole on every device.
          batches: what `data.feed.pipeline.eval_batches` yields.
        """
        (vae,) = params.values()
        return evaluate(self._step, vae, batches, self._mesh)

    def summarize(self, totals: Totals) -> dict[str, float]:
        """What a person reads of the sums."""
        return summarize(totals, self._model, self._config)


def summarize(
    totals: Totals, model: nn.Module, config: Config, importance_samples: int = 0
) -> dict[str, float]:
    """`evidence.summarize` with what only an evaluation has.

    Adds the number of pictures, the standard error of the ELBO, PSNR and SSIM as means over
    pictures (the posterior mean decoded and rounded), the importance-weighted bound, and the
    part of the bits/dim that each resolution of a ladder's latents takes.
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
