"""A VAE trained by the evidence lower bound (Kingma and Welling 2014)."""

import functools
import math
from collections.abc import Sequence
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
from vaejax.likelihoods import build_likelihood
from vaejax.models import build_model, init_params
from vaejax.priors.gaussian import MIN_CODES
from vaejax.tasks.augmentation import mirror
from vaejax.tasks.vae.divergence import advice, explain_divergence, loss_bits
from vaejax.tasks.vae.evaluation import Evaluator
from vaejax.tasks.vae.evidence import Sums, empty_sums, evidence, per_factor, summarize, sums_of
from vaejax.tasks.vae.gallery import Gallery
from vaejax.tasks.vae.health import Health
from vaejax.tasks.vae.nonfinite import first_not_finite

NET = "vae"
# The validation figure that decides which checkpoint is the best.
BEST_BY = "elbo_bits_per_dim"


class VAETask:
    """One network: encoder, decoder and prior, which learn together.

    Attributes:
      config: config of the run.
      model: the network.
    """

    def __init__(self, config: Config, model: nn.Module | None = None):
        """Builds what is needed; nothing is computed.

        Args:
          config: config of the run.
          model: another than `build_model` makes of the config, with the same methods.
        """
        self.config = config
        self.model = model or build_model(config)
        self._likelihood = build_likelihood(config)
        self.optimizers: dict[str, OptimizerConfig | None] = {NET: config.optimizer}
        self.best_by = BEST_BY
        self.builds_on: dict[str, Any] = {}

    def examples(self, dataset: Dataset) -> dict[str, Arrays]:
        """The pictures of each split.

        Raises:
          UserError: there are too few for the priors to be fitted afterwards.
        """
        count, fitted = len(dataset.splits["train"].images), self.config.prior.fitted
        if fitted and count < MIN_CODES:
            raise UserError(
                f"config.prior.fitted={fitted} needs the codes of at least {MIN_CODES} training "
                f"pictures, and there is {count}; add pictures, or set --config.prior.fitted= to "
                "nothing"
            )
        return {name: split.arrays() for name, split in dataset.splits.items()}

    def init(self, key: PRNGKeyArray) -> dict[str, PyTree]:
        """Fresh parameters, float32."""
        return {NET: init_params(self.model, self.config, key)}

    def augment(self, batch: dict[str, Array], key: PRNGKeyArray) -> dict[str, Array]:
        """Half of the pictures mirrored at random, if `config.data.flip` says so."""
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
        """Minus the ELBO, whose KL term is weighed as the objective says.

        In nats per dimension, so that one learning rate and one clipping norm serve every picture
        size.
        """
        images, settings = batch["image"], self.config.objective
        terms = evidence(self.model, params[net], self._likelihood, images, keys, dropout=keys)
        kl = jnp.mean(terms.inference.kl, axis=0)
        sizes = jnp.asarray(self.model.factors(), jnp.float32)
        pressed = objectives.free_bits(kl, settings.free_bits * sizes)
        if settings.balance:
            pressed = pressed * objectives.balance(kl, sizes, kl_warmup(settings, step))
        loss = beta_at(settings, step) * jnp.sum(pressed) - jnp.mean(terms.log_likelihood)
        everyone = jnp.ones(images.shape[0], jnp.float32)
        sums = sums_of(jax.lax.stop_gradient(terms), self._likelihood, images, everyone)
        return loss / images[0].size, sums

    def no_metrics(self) -> dict[str, Sums]:
        """The sums of no pictures."""
        return {NET: empty_sums(len(self.model.factors()), self.model.code_size())}

    def summarize(self, sums: dict[str, Sums], step: int) -> dict[str, float | list[float]]:
        """What a person reads of the sums of some updates, the last of which was `step`'s."""
        dimensions = math.prod(self.config.data.shape)
        beta = float(beta_at(self.config.objective, jnp.asarray(step - 1)))
        return {
            **summarize(sums[NET], dimensions, beta),
            "beta": beta,
            **per_factor(sums[NET]),
        }

    def describe(self, values: dict[str, float | list[float]]) -> str:
        """The training metrics in a few words."""
        return (
            f"{values['elbo_bits_per_dim']:.3f} bits/dim  {values['kl_nats']:.0f} nats KL  "
            f"PSNR {values['psnr_pooled']:.2f}"
        )

    def describe_validation(self, values: dict[str, float]) -> str:
        """The metrics of a validation in a few words."""
        return (
            f"{values['elbo_bits_per_dim']:.4f} bits/dim (ELBO)  {values['kl_nats']:.0f} nats KL  "
            f"PSNR {values['psnr']:.2f}  SSIM {values['ssim']:.3f}"
        )

    def health(self) -> Health:
        """What watches over the metrics of a run."""
        return Health(self.config)

    def divergence(self, step: int, values: dict, lowest: float) -> str:
        """Why training has diverged, as `explain_divergence` has it; empty where it has not."""
        return explain_divergence(self.config, step, values, lowest)

    def loss_of(self, values: dict) -> float:
        """The loss of training metrics, in bits/dim, of which `divergence` takes the lowest."""
        return loss_bits(self.config, values)

    def advice(self) -> str:
        """What to change where training diverges again and again."""
        return advice(self.config.optimizer)

    def evaluator(self, mesh: Mesh) -> Evaluator:
        """Evaluates on the validation split during training."""
        return Evaluator(self.config, self.model, mesh)

    def gallery(self, dataset: Dataset, directory: Path) -> Gallery:
        """Draws what is learned as it is learned."""
        return Gallery(self.config, dataset, directory)

    def first_not_finite(
        self, params: dict[str, PyTree], batch: dict[str, Array], keys: Array, parts: Sequence
    ) -> tuple[str, Any] | None:
        """The first tensor of an update that is not finite, as `nonfinite` finds it."""
        images = batch["image"]
        return first_not_finite(self.model, self._likelihood, params[NET], images, keys, parts)


@functools.cache
def vae_task(config: Config) -> VAETask:
    """The task of a config; one object for each, of which JAX traces what it computes only once."""
    return VAETask(config)


def kl_warmup(settings: ObjectiveConfig, step: Int[Array, ""]) -> Float[Array, ""]:
    """The share of the KL term's warm-up that is over."""
    warmup = max(settings.warmup_steps, 1)
    return jnp.minimum(1.0, (step.astype(jnp.float32) + 1.0) / warmup)


def beta_at(settings: ObjectiveConfig, step: Int[Array, ""]) -> Float[Array, ""]:
    """The weight of the KL term, grown linearly from 0 over the warm-up."""
    return settings.beta * kl_warmup(settings, step)
