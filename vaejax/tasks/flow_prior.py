"""A flow over the codes of a trained encoder, learned by flow matching, as a second stage."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree, UInt8

from vaejax.config import Config, OptimizerConfig
from vaejax.data import Dataset
from vaejax.models.noise import Keys, normal, picture_keys
from vaejax.priors.flow_matching import FlowMatching, Velocity, flow_matching_errors
from vaejax.priors.gaussian import Gaussian, fit_gaussian
from vaejax.records import pictures
from vaejax.runtime.mesh import split_batch, to_devices

FLOW, WHITENING = "flow", "whitening"
# Draws of noise and time for each code of a validation: of a single one the mean varies too much.
_DRAWS = 8
_EVALUATION_SEED = 2**31 - 3
# The loss beside the lowest of the run, above which training has diverged, and above which a
# validation has overfitted.
_DIVERGED, _OVERFITTED = 4.0, 1.05

Codes = Float[np.ndarray, "picture latent"]
Draw = Callable[[Float[Array, "count latent"]], UInt8[np.ndarray, "count height width channel"]]
Sums = dict[str, Float[Array, ""]]


class FlowPriorTask:
    """The velocity network of `priors.FlowMatching`, and beside it, not trained, its whitening.

    Attributes:
      config: config of the stage.
      builds_on: what the codes are of, as JSON.
    """

    best_by = "loss"

    def __init__(
        self,
        config: Config,
        codes: Mapping[str, Codes],
        decode: Draw,
        builds_on: Mapping[str, Any],
        *,
        width: int = 512,
        blocks: int = 2,
    ):
        """Fits the Gaussian that whitens the codes.

        Args:
          config: config of the stage, whose `optimizer` trains the network.
          codes: one of each picture, by split.
          decode: draws the pictures of codes.
          builds_on: the encoder.
          width: hidden units of the network.
          blocks: its residual blocks.

        Raises:
          UserError: fewer than two codes, or some that are not finite.
        """
        self.config, self.builds_on = config, builds_on
        self.optimizers: dict[str, OptimizerConfig | None] = {
            FLOW: config.optimizer,
            WHITENING: None,
        }
        self._decode = decode
        self._gaussian = fit_gaussian([codes["train"]])
        # Once, and not in each update, of which it would take a third.
        self._white = {split: _whitened(self._gaussian, some) for split, some in codes.items()}
        self._network = Velocity(width, blocks)

    def prior(self, params: Mapping[str, PyTree]) -> FlowMatching:
        """The prior that networks of these parameters are."""
        network = self._network
        whitening = Gaussian(**params[WHITENING])
        return FlowMatching(whitening, params[FLOW], network.width, network.blocks)

    def examples(self, dataset: Dataset) -> dict[str, dict[str, Codes]]:
        """The whitened codes of each split."""
        return {split: {"code": codes} for split, codes in self._white.items()}

    def init(self, key: PRNGKeyArray) -> dict[str, PyTree]:
        """A flow that is the Gaussian of the codes."""
        latents = jnp.zeros((1, len(self._gaussian.mean)))
        flow = self._network.init(key, latents, jnp.zeros(1))["params"]
        return {FLOW: flow, WHITENING: vars(self._gaussian)}

    def augment(self, batch: dict[str, Array], key: PRNGKeyArray) -> dict[str, Array]:
        """The batch: codes have no mirror image."""
        return batch

    def loss(
        self,
        net: str,
        params: dict[str, PyTree],
        batch: dict[str, Array],
        keys: Keys,
        step: Int[Array, ""],
    ) -> tuple[Float[Array, ""], Sums]:
        """The mean squared error of the velocity per dimension."""
        # Times spread evenly from one random start: each is uniform, their mean varies little.
        count = len(keys)
        times = jax.random.uniform(keys[0]) + jnp.arange(count, dtype=jnp.float32) / count
        errors = self._errors(params[FLOW], batch["code"], keys, times % 1.0)
        sums = {"loss": jnp.sum(errors), "count": jnp.float32(count)}
        return jnp.mean(errors), jax.lax.stop_gradient(sums)

    def _errors(
        self, params: PyTree, white: Array, keys: Keys, times: Float[Array, "batch"]
    ) -> Float[Array, "batch"]:
        noise = normal(keys, white.shape[1:])
        return flow_matching_errors(self._network, params, white, noise, times)

    def no_metrics(self) -> dict[str, Sums]:
        """The sums of no codes."""
        return {FLOW: {"loss": jnp.zeros(()), "count": jnp.zeros(())}}

    def summarize(self, sums: dict[str, Sums], step: int) -> dict[str, float]:
        """The mean loss."""
        return {"loss": float(sums[FLOW]["loss"]) / float(sums[FLOW]["count"])}

    def describe(self, values: dict[str, float]) -> str:
        """The metrics in a few words."""
        return f"flow matching loss {values['loss']:.4f}"

    describe_validation = describe

    def health(self) -> "OverfittingWatch":
        """Tells of overfitting to the codes."""
        return OverfittingWatch()

    def divergence(self, step: int, values: dict[str, float], lowest: float) -> str:
        """Why training has diverged; empty where it has not."""
        if not values["loss"] > _DIVERGED * lowest:
            return ""
        return f"training has diverged: its loss {values['loss']:.3g} was {lowest:.3g}"

    def loss_of(self, values: dict[str, float]) -> float:
        """The loss per dimension."""
        return values["loss"]

    def advice(self) -> str:
        """What to do where training diverges again and again."""
        return "fit another prior, such as gaussian or mixture"

    def evaluator(self, mesh: Mesh) -> "MeanLoss":
        """The loss over a split, under noise that is always the same."""
        return MeanLoss(self._errors, mesh)

    def gallery(self, dataset: Dataset, directory: Path) -> "Samples":
        """Draws faces from the flow."""
        return Samples(self, self._decode, self.config.eval.grid, directory)

    def first_not_finite(
        self, params: dict[str, PyTree], batch: dict[str, Array], keys: Array, parts: Sequence
    ) -> None:
        """None: no tensor is looked for."""


def _whitened(gaussian: Gaussian, codes: Codes) -> Codes:
    return np.asarray(gaussian.to_noise(jnp.asarray(codes)))


class OverfittingWatch:
    """Warns once, at the first validation whose loss has risen by 5 % from the lowest one."""

    def __init__(self):
        """Starts before any validation, with no warning given."""
        self._best, self._said = float("inf"), False

    def training(self, step: int, values: dict[str, float]) -> list[str]:
        """None: only a validation shows it."""
        return []

    def validation(self, train: dict[str, float] | None, valid: dict[str, float]) -> list[str]:
        """The complaint, where there is reason for it."""
        self._best = min(self._best, valid["loss"])
        if self._said or valid["loss"] <= _OVERFITTED * self._best:
            return []
        self._said = True
        return [
            f"overfitting: the loss over the validation codes, {valid['loss']:.3f}, was "
            f"{self._best:.3f}; the best checkpoint becomes the prior, and more pictures would "
            "make a better one"
        ]


class MeanLoss:
    """Sums of the loss over the codes of a split, each under the same draws at any time."""

    def __init__(self, errors: Callable[..., Float[Array, "batch"]], mesh: Mesh):
        """Compiles lazily."""
        self._mesh = mesh
        root = jax.random.key(_EVALUATION_SEED)

        @jax.jit
        def total(
            params: PyTree, codes: Array, index: Array, mask: Bool[Array, "batch"]
        ) -> Float[Array, ""]:
            def of_draw(draw: Int[Array, ""]) -> Float[Array, ""]:
                keys = picture_keys(root, index, draw)
                times = jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, 1)))(keys)
                found = errors(params, codes, keys, times)
                return jnp.sum(jnp.where(mask, found, jnp.zeros_like(found)))

            return jnp.mean(jax.lax.map(of_draw, jnp.arange(_DRAWS)))

        self._total = total

    def __call__(
        self, params: dict[str, PyTree], batches: Iterable[dict[str, np.ndarray]]
    ) -> Float[np.ndarray, "2"] | None:
        """The loss summed over all codes, and how many they are; None if there are none."""
        totals = np.zeros(2)
        for batch in batches:
            arrays = to_devices(batch, split_batch(self._mesh))
            total = self._total(params[FLOW], arrays["code"], arrays["index"], arrays["mask"])
            count = jnp.sum(arrays["mask"], dtype=jnp.float32)
            totals += np.array(jax.device_get([total, count]), np.float64)
        return totals if totals[1] else None

    def summarize(self, totals: Float[np.ndarray, "2"]) -> dict[str, float]:
        """The mean loss."""
        return {"loss": float(totals[0] / totals[1]), "codes": float(totals[1])}


class Samples:
    """Draws the same noise as faces, again and again while the flow learns."""

    def __init__(self, task: FlowPriorTask, decode: Draw, columns: int, directory: Path):
        """Draws nothing yet."""
        self._decode, self._columns, self._directory = decode, columns, directory
        key = jax.random.key(_EVALUATION_SEED)
        self._codes = jax.jit(lambda params: task.prior(params).sample(key, columns**2))

    def draw(self, step: int, params: dict[str, PyTree], reporter: Any) -> None:
        """Writes a sheet of faces, and shows it in TensorBoard."""
        sheet = pictures.grid(self._decode(self._codes(params)), self._columns)
        pictures.save(self._directory / f"samples_{step:08d}.png", sheet)
        reporter.picture(step, "samples", sheet)
