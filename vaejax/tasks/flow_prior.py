"""The task of a run's second stage: a flow over a trained encoder's codes, by flow matching."""

from collections.abc import Callable, Iterable, Mapping
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
from vaejax.records.ranking import Ranking
from vaejax.runtime.mesh import split_batch, to_devices
from vaejax.tasks.overfitting import OverfittingWatch

FLOW, WHITENING = "flow", "whitening"
# Samples of noise and time for each code in a validation; with one, the mean would vary too much.
_DRAWS = 8
_EVALUATION_SEED = 2**31 - 3
# Ratio of a loss to the lowest loss of the run, above which training has diverged.
_DIVERGED = 4.0

Codes = Float[np.ndarray, "picture latent"]
Draw = Callable[[Float[Array, "count latent"]], UInt8[np.ndarray, "count height width channel"]]
Sums = dict[str, Float[Array | np.ndarray, ""]]


class FlowPriorTask:
    """Trains the velocity network of `priors.FlowMatching`.

    Its parameters are two networks: the velocity network, and the Gaussian that whitens the codes,
    which is not trained. For the methods see `training.task.Task`.

    Attributes:
      config: config of the stage.
      builds_on: identifies the encoder of the codes, as a JSON object.
    """

    best_by = Ranking("loss")
    begins_trained = False

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
        """Fits the Gaussian that whitens the codes, and whitens them.

        Args:
          config: config of the stage; `optimizer` and `eval.grid` are read.
          codes: the codes of each split, one for each picture; `train` is needed.
          decode: maps codes to pictures.
          builds_on: identifies the encoder of the codes; it is saved in checkpoints.
          width: hidden units of the velocity network.
          blocks: residual blocks of the velocity network.

        Raises:
          UserError: there are fewer than two training codes, or some are not finite.
        """
        self.config, self.builds_on = config, builds_on
        self.optimizers: dict[str, OptimizerConfig | None] = {
            FLOW: config.optimizer,
            WHITENING: None,
        }
        self._decode = decode
        self._gaussian = fit_gaussian([codes["train"]])
        # Whitened once and not in each update, where it would take a third of the time.
        self._white = {split: _whitened(self._gaussian, some) for split, some in codes.items()}
        self._network = Velocity(width, blocks)

    def prior(self, params: Mapping[str, PyTree]) -> FlowMatching:
        """Returns the prior with these parameters of both networks."""
        network = self._network
        whitening = Gaussian(**params[WHITENING])
        return FlowMatching(whitening, params[FLOW], network.width, network.blocks)

    def examples(self, dataset: Dataset) -> dict[str, dict[str, Codes]]:
        """Returns the whitened codes of each split as `code`; `dataset` is not read."""
        return {split: {"code": codes} for split, codes in self._white.items()}

    def init(self, key: PRNGKeyArray) -> dict[str, PyTree]:
        """Initialises the flow, which then equals the Gaussian of the codes."""
        latents = jnp.zeros((1, len(self._gaussian.mean)))
        flow = self._network.init(key, latents, jnp.zeros(1))["params"]
        return {FLOW: flow, WHITENING: vars(self._gaussian)}

    def augment(self, batch: dict[str, Array], key: PRNGKeyArray) -> dict[str, Array]:
        """Returns the batch unchanged: codes have no mirror image."""
        return batch

    def loss(
        self,
        net: str,
        params: dict[str, PyTree],
        batch: dict[str, Array],
        keys: Keys,
        step: Int[Array, ""],
    ) -> tuple[Float[Array, ""], Sums]:
        """Returns the flow matching loss, a mean over codes and latent dimensions, and its sums."""
        # Stratified times: evenly spaced from one random start, so that each is uniform in [0, 1]
        # but the batch mean of the loss varies less than with independent times.
        count = len(keys)
        # Another key than that of the first code's noise, which would have the same bits.
        start = jax.random.uniform(jax.random.fold_in(keys[0], 1))
        times = start + jnp.arange(count, dtype=jnp.float32) / count
        errors = self._errors(params[FLOW], batch["code"], keys, times % 1.0)
        sums = {"loss": jnp.sum(errors), "count": jnp.float32(count)}
        return jnp.mean(errors), jax.lax.stop_gradient(sums)

    def _errors(
        self, params: PyTree, white: Array, keys: Keys, times: Float[Array, "batch"]
    ) -> Float[Array, "batch"]:
        noise = normal(keys, white.shape[1:])
        return flow_matching_errors(self._network, params, white, noise, times)

    def no_metrics(self) -> dict[str, Sums]:
        """Returns the sums of no codes, which are zero."""
        return {FLOW: {"loss": jnp.zeros(()), "count": jnp.zeros(())}}

    def summarize(self, sums: dict[str, Sums], step: int) -> dict[str, float]:
        """Returns the mean of `loss` over the codes of a window of updates."""
        return {"loss": float(sums[FLOW]["loss"]) / float(sums[FLOW]["count"])}

    def describe(self, values: dict[str, float]) -> str:
        """Formats the metrics for the progress line."""
        return f"flow matching loss {values['loss']:.4f}"

    describe_validation = describe

    def health(self) -> OverfittingWatch:
        """Returns the watch that warns of overfitting to the codes."""
        return OverfittingWatch(
            "codes",
            "the best checkpoint becomes the prior, and more pictures would make a better one",
        )

    def divergence(self, step: int, values: dict[str, float], lowest: float) -> str:
        """Returns why training has diverged; empty if it has not.

        It has diverged if the loss is more than four times `lowest`, the lowest loss so far.
        """
        if not values["loss"] > _DIVERGED * lowest:
            return ""
        return (
            f"training has diverged: its loss rose to {values['loss']:.3g} from its lowest value, "
            f"{lowest:.3g}"
        )

    def loss_of(self, values: dict[str, float]) -> float:
        """Returns the loss per dimension from training metrics."""
        return values["loss"]

    def advice(self) -> str:
        """Returns advice to the user for training that diverges after every rollback."""
        return "fit another prior, such as gaussian or mixture"

    def evaluator(self, mesh: Mesh) -> "MeanLoss":
        """Returns the evaluator of the loss over a split, with the same noise in each call."""
        return MeanLoss(self._errors, mesh)

    def picture_metrics(self, dataset: Dataset, mesh: Mesh) -> None:
        """Returns None: only the model's own pictures are measured during training."""
        return None

    def gallery(self, dataset: Dataset, directory: Path) -> "Samples":
        """Returns the gallery that draws faces from the flow into files of `directory`."""
        return Samples(self, self._decode, self.config.eval.grid, directory)

    def intermediates(self) -> dict[str, Callable]:
        """Returns the function of the codes; the loss has no other tensor with a name."""
        return {"code": lambda params, batch, keys: batch["code"]}


def _whitened(gaussian: Gaussian, codes: Codes) -> Codes:
    return np.asarray(gaussian.to_noise(jnp.asarray(codes)))


class MeanLoss:
    """Evaluates the loss over the codes of a split, with the same noise and times in each call."""

    def __init__(self, errors: Callable[..., Float[Array, "batch"]], mesh: Mesh):
        """Compiles on the first call.

        Args:
          errors: (params, codes, keys, times) -> the loss of each code.
          mesh: mesh of the devices.
        """
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
        """Returns the loss summed over all codes, and their number; None if there are none."""
        totals = np.zeros(2)
        for batch in batches:
            arrays = to_devices(batch, split_batch(self._mesh))
            total = self._total(params[FLOW], arrays["code"], arrays["index"], arrays["mask"])
            count = jnp.sum(arrays["mask"], dtype=jnp.float32)
            totals += np.array(jax.device_get([total, count]), np.float64)
        return totals if totals[1] else None

    def summarize(self, totals: Float[np.ndarray, "2"]) -> dict[str, float]:
        """Returns the mean of `loss` over the codes, and the number of `codes`."""
        return {"loss": float(totals[0] / totals[1]), "codes": float(totals[1])}


class Samples:
    """Draws faces from the same noise during training, as a grid of `columns` x `columns`."""

    def __init__(self, task: FlowPriorTask, decode: Draw, columns: int, directory: Path):
        """Compiles on the first `draw`.

        Args:
          task: the task whose flow is sampled.
          decode: maps codes to pictures.
          columns: faces in each row, and number of rows.
          directory: the directory of the files.
        """
        self._decode, self._columns, self._directory = decode, columns, directory
        key = jax.random.key(_EVALUATION_SEED)
        self._codes = jax.jit(lambda params: task.prior(params).sample(key, columns**2))

    def draw(self, step: int, params: dict[str, PyTree], reporter: Any) -> None:
        """Writes the grid to `samples_STEP.png`, and passes it to `reporter` for TensorBoard."""
        sheet = pictures.grid(self._decode(self._codes(params)), self._columns)
        pictures.save(self._directory / f"samples_{step:08d}.png", sheet)
        reporter.picture(step, "samples", sheet)
