"""A VAE trained by the evidence lower bound (Kingma and Welling 2014)."""

import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from vaejax import objectives
from vaejax.config import Config, ObjectiveConfig, OptimizerConfig
from vaejax.data import Dataset
from vaejax.data.feed.pipeline import Arrays
from vaejax.errors import UserError
from vaejax.likelihoods import Images, build_likelihood
from vaejax.models import build_model, init_params
from vaejax.models.noise import Keys
from vaejax.priors.gaussian import MIN_CODES
from vaejax.tasks.augmentation import masked, mirror
from vaejax.tasks.flow_prior.labels import label_values
from vaejax.tasks.vae.divergence import advice, explain_divergence, loss_bits
from vaejax.tasks.vae.evaluation import Evaluator
from vaejax.tasks.vae.evidence import Sums, empty_sums, evidence, per_factor, summarize, sums_of
from vaejax.tasks.vae.gallery import Gallery
from vaejax.tasks.vae.health import Health
from vaejax.tasks.vae.intermediates import intermediates
from vaejax.tasks.vae.picture_metrics import PictureMetrics, metrics_in_training, ranking

NET = "vae"


class VAETask:
    """Trains one network: encoder, decoder and prior together.

    For the methods see `training.task.Task`.

    Attributes:
      config: config of the run.
      model: the Linen module.
    """

    begins_trained = False

    def __init__(self, config: Config, model: nn.Module | None = None):
        """Builds the model and the likelihood; initialises no parameters.

        Args:
          config: config of the run.
          model: a module that replaces `build_model(config)`, with the same methods as `VAE`.
        """
        self.config = config
        self.model = model or build_model(config)
        self._likelihood = build_likelihood(config)
        # Further arguments of the model's `infer` in training.
        noise = config.objective.latent_noise
        self._how: dict[str, Any] = {"latent_noise": noise} if noise else {}
        self.optimizers: dict[str, OptimizerConfig | None] = {NET: config.optimizer}
        self.best_by = ranking(config)
        self.builds_on: dict[str, Any] = {}

    def examples(self, dataset: Dataset) -> dict[str, Arrays]:
        """Returns the pictures of each split.

        Raises:
          UserError: there are too few training pictures for the priors of `config.prior.fitted`, or
            the data lacks a label of `config.flow.labels`.
        """
        count, fitted = len(dataset.splits["train"].images), self.config.prior.fitted
        if fitted and count < MIN_CODES:
            raise UserError(
                f"config.prior.fitted={fitted} needs the codes of at least {MIN_CODES} training "
                f"pictures, and there is {count}; add pictures, or set --config.prior.fitted= to "
                "nothing"
            )
        # Before the model is trained, and not only before the flow is.
        label_values(dataset, self.config.flow.labels)
        return {name: split.arrays() for name, split in dataset.splits.items()}

    def init(self, key: PRNGKeyArray) -> dict[str, PyTree]:
        """Initialises the parameters, float32."""
        return {NET: init_params(self.model, self.config, key)}

    def augment(self, batch: dict[str, Array], key: PRNGKeyArray) -> dict[str, Array]:
        """Mirrors half of the pictures at random if `config.data.flip` is set."""
        if not self.config.data.flip:
            return batch
        return mirror(batch, key)

    def loss(
        self,
        net: str,
        params: dict[str, PyTree],
        batch: dict[str, Array],
        keys: Array,
        step: Int[Array, ""],
    ) -> tuple[Float[Array, ""], Sums]:
        """Returns the negative ELBO, its KL term weighted by `config.objective`, and sums.

        The loss is in nats per dimension of a picture, so that one learning rate and one clipping
        norm are right for every picture size.

        Args:
          net: name of the network, `NET`.
          params: parameters of the network by name.
          batch: `image`, uint8 [batch, height, width, channel].
          keys: one key for each picture, for the noise of z, for dropout and for the mask.
          step: updates before this one.
        """
        images, settings = batch["image"], self.config.objective
        terms = evidence(
            self.model,
            params[net],
            self._likelihood,
            images,
            keys,
            dropout=keys,
            seen=self._seen(images, keys),
            **self._how,
        )
        kl = jnp.mean(terms.inference.kl, axis=0)
        sizes = jnp.asarray(self.model.factors(), jnp.float32)
        weighted_kl = kl
        if settings.free_bits:
            weighted_kl = objectives.free_bits(kl, settings.free_bits * sizes)
        if settings.balance:
            weighted_kl *= objectives.balance(kl, sizes, kl_warmup(settings, step))
        loss = beta_at(settings, step) * jnp.sum(weighted_kl) - jnp.mean(terms.log_likelihood)
        everyone = jnp.ones(images.shape[0], jnp.float32)
        sums = sums_of(jax.lax.stop_gradient(terms), self._likelihood, images, everyone)
        return loss / images[0].size, sums

    def no_metrics(self) -> dict[str, Sums]:
        """Returns the sums of no pictures, which are zero."""
        return {NET: empty_sums(len(self.model.factors()), self.model.code_shape())}

    def summarize(self, sums: dict[str, Sums], step: int) -> dict[str, float | list[float]]:
        """Computes the training metrics of a window of updates.

        Args:
          sums: sums over the window, by network.
          step: updates so far, up to the end of the window.
        """
        dimensions = math.prod(self.config.data.shape)
        beta = float(beta_at(self.config.objective, jnp.asarray(step - 1)))
        return {
            **summarize(sums[NET], dimensions, beta),
            "beta": beta,
            **per_factor(sums[NET]),
        }

    def describe(self, values: dict[str, float | list[float]]) -> str:
        """Formats the training metrics for the progress line."""
        return (
            f"{values['elbo_bits_per_dim']:.3f} bits/dim  {values['kl_nats']:.0f} nats KL  "
            f"PSNR {values['psnr_pooled']:.2f}"
        )

    def describe_validation(self, values: dict[str, float]) -> str:
        """Formats the metrics of a validation for a line of the log."""
        return (
            f"{values['elbo_bits_per_dim']:.4f} bits/dim (ELBO)  {values['kl_nats']:.0f} nats KL  "
            f"PSNR {values['psnr']:.2f}  SSIM {values['ssim']:.3f}"
        )

    def health(self) -> Health:
        """Returns the checks of the run's metrics."""
        return Health(self.config)

    def divergence(self, step: int, values: dict, lowest: float) -> str:
        """Returns why training has diverged, empty if it has not; see `explain_divergence`."""
        return explain_divergence(self.config, step, values, lowest)

    def loss_of(self, values: dict) -> float:
        """Returns the loss in bits/dim; `divergence` receives its lowest value so far."""
        return loss_bits(self.config, values)

    def advice(self) -> str:
        """Returns advice to the user for training that diverges after every rollback."""
        return advice(self.config.optimizer)

    def evaluator(self, mesh: Mesh) -> Evaluator:
        """Returns the evaluator of the validation split."""
        return Evaluator(self.config, self.model, mesh)

    def picture_metrics(self, dataset: Dataset, mesh: Mesh) -> PictureMetrics | None:
        """Returns what measures `config.eval.metrics`; None if there are none.

        Raises:
          UserError: a metric is unknown or lacks what it needs, or `config.eval.best_by` names no
            metric of the validations.
        """
        chosen = metrics_in_training(self.config)
        if not self.config.eval.metrics:
            return None
        return PictureMetrics(self.config, chosen, dataset, mesh)

    def gallery(self, dataset: Dataset, directory: Path) -> Gallery:
        """Returns the gallery, which draws faces during training into files of `directory`."""
        return Gallery(self.config, dataset, directory)

    def intermediates(self) -> dict[str, Callable]:
        """Returns the functions of `tasks.vae.intermediates`, with the arguments of `loss`."""

        def on_batch(tensors: Callable) -> Callable:
            return lambda params, batch, keys: tensors(params[NET], batch["image"], keys)

        functions = intermediates(self.model, self._likelihood, self._seen, **self._how)
        return {name: on_batch(tensors) for name, tensors in functions.items()}

    def _seen(self, images: Images, keys: Keys) -> Images:
        """The pictures that the encoder sees in training."""
        share = self.config.objective.mask
        return masked(images, keys, share) if share else images


@functools.cache
def vae_task(config: Config) -> VAETask:
    """Returns the task of a config, cached, so that JAX traces its functions only once."""
    return VAETask(config)


def kl_warmup(settings: ObjectiveConfig, step: Int[Array, ""]) -> Float[Array, ""]:
    """Computes the share of the KL term's warm-up that is over after this update, in (0, 1]."""
    warmup = max(settings.warmup_steps, 1)
    return jnp.minimum(1.0, (step.astype(jnp.float32) + 1.0) / warmup)


def beta_at(settings: ObjectiveConfig, step: Int[Array, ""]) -> Float[Array, ""]:
    """Computes the weight of the KL term, which grows linearly to `beta` over the warm-up."""
    return settings.beta * kl_warmup(settings, step)
