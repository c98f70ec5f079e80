"""A task that is not a VAE: two adversarial networks and a frozen one. Also a command.

`python -m toy WORKDIR [HOST:PORT COUNT INDEX]` trains three stages of it, as `vaejax.main` trains a
VAE. The frozen network of the second and third stage is the averaged player of the stage before.
"""

import pathlib
import sys
from collections.abc import Callable
from contextlib import closing

import jax
import jax.numpy as jnp
import numpy as np
from tiny import tiny

from vaejax.config import Config, OptimizerConfig
from vaejax.errors import TRY_AGAIN
from vaejax.records import pictures
from vaejax.records.checkpoints import Checkpoints
from vaejax.records.digests import digest
from vaejax.records.ranking import Ranking
from vaejax.runtime import processes
from vaejax.runtime.mesh import replicated, single_device_mesh, split_batch, to_devices
from vaejax.runtime.rendezvous import Rendezvous
from vaejax.runtime.signals import interrupt_on_signal
from vaejax.stages.sequence import Stage, train_in_turn
from vaejax.tasks.augmentation import mirror
from vaejax.training.loop import Outcome
from vaejax.training.saved_state import restore_averages
from vaejax.training.state import shapes

SETTINGS = OptimizerConfig(
    learning_rate=0.1, warmup_steps=0, final_fraction=1.0, clip_norm=0.0, guard=0.0,
    weight_decay=0.0, ema_decay=0.5,
)  # fmt: skip
# The labels that are an example's coordinates. The yaw changes sign in a mirrored picture.
LABELS, SIDED = ("yaw", "smile"), ("yaw",)
START = 0.5
# The player reaches this limit once. After the rollback its learning rate is too low to do so.
LIMIT = 1.85


def toy_config(**train_settings) -> Config:
    """Returns the config of a run of the task that takes seconds."""
    loop = {"steps": 24, "log_every": 4, "eval_every": 8, "save_every": 4}
    trouble = {"max_skipped": 4, "rollback_factor": 0.1}
    return tiny(train={**loop, **trouble, **train_settings})


def points(batch: dict) -> jax.Array:
    """Returns the points [batch, 2]: yaw and smile, scaled to about [-1, 1]."""
    return jnp.stack([batch["yaw"] / 30.0, batch["smile"]], axis=1)


class Adversaries:
    """Trains a player and an adversary against each other.

    The player minimises its mean squared distance from the points, which the adversary and the
    frozen network shift. The adversary maximises that distance, minus a penalty on its norm.

    Attributes:
      limit: the player's loss is NaN if the absolute value of a coordinate is at least this.
    """

    best_by = Ranking("distance")
    begins_trained = False

    def __init__(
        self,
        adversary: OptimizerConfig | None = SETTINGS,
        limit: float = np.inf,
        fixed: np.ndarray | None = None,
    ):
        self.optimizers = {"player": SETTINGS, "adversary": adversary, "fixed": None}
        self.limit, self.builds_on = limit, {}
        self.fixed = np.full(2, START, np.float32) if fixed is None else fixed
        if fixed is not None:
            self.builds_on = {"digest": digest(fixed)}

    def init(self, key):
        start = {name: {"kernel": jnp.full((2,), START)} for name in self.optimizers}
        return {**start, "fixed": {"kernel": jnp.asarray(self.fixed)}}

    def examples(self, dataset):
        return {name: split.arrays(LABELS) for name, split in dataset.splits.items()}

    def augment(self, batch, key):
        return mirror(batch, key, sided=SIDED)

    def loss(self, net, params, batch, keys, step):
        point, against, fixed = (params[name]["kernel"] for name in self.optimizers)
        distance = jnp.mean((points(batch) + (against + fixed - point)[None]) ** 2)
        if net == "adversary":
            return 0.1 * jnp.sum(against**2) - distance, {"count": jnp.float32(len(keys))}
        distance = jnp.where(jnp.max(jnp.abs(point)) < self.limit, distance, jnp.nan)
        return distance, {"distance": distance}

    def no_metrics(self):
        zero = jnp.zeros(())
        trained = {"player": {"distance": zero}, "adversary": {"count": zero}}
        return {name: trained[name] for name in trained if self.optimizers[name]}

    def summarize(self, sums, step):
        return {"distance": float(sums["player"]["distance"])}

    def describe(self, values):
        return f"distance {values['distance']:.3f}"

    def describe_validation(self, values):
        return self.describe(values)

    def health(self):
        return Silent()

    def divergence(self, step, values, lowest):
        return "it has diverged" if values["distance"] > 100 * lowest else ""

    def loss_of(self, values):
        return values["distance"]

    def advice(self):
        return "let them play more slowly"

    def evaluator(self, mesh):
        return MeanDistance(mesh)

    def picture_metrics(self, dataset, mesh):
        return None

    def gallery(self, dataset, directory):
        return Board(directory)

    def intermediates(self):
        return {}


class Spoiled(Adversaries):
    """Adversaries with some updates that are not finite.

    The losses of such an update are finite, but the norm of its gradients overflows float32.
    """

    def __init__(self, when: Callable[[jax.Array], jax.Array | bool]):
        """Spoils the updates for whose `step` the function `when` returns true."""
        super().__init__()
        self._when = when

    def loss(self, net, params, batch, keys, step):
        loss, sums = super().loss(net, params, batch, keys, step)
        return steeper(loss, jnp.where(self._when(step), 1e38, 1.0)), sums


def steeper(loss: jax.Array, factor: jax.Array | float) -> jax.Array:
    """Returns a loss of the same value whose gradients are multiplied by `factor`."""
    constant = jax.lax.stop_gradient(loss)
    return constant + factor * (loss - constant)


class Silent:
    """Gives no health warnings."""

    def training(self, step, values):
        return []

    def validation(self, train, valid):
        return []


class MeanDistance:
    """Computes the player's mean squared distance from the points of the validation split."""

    def __init__(self, mesh):
        self._mesh = mesh

        @jax.jit
        def distances(point, batch):
            apart = jnp.sum((points(batch) - point[None]) ** 2, axis=1)
            return jnp.sum(jnp.where(batch["mask"], apart, 0.0)), jnp.sum(batch["mask"])

        self._distances = distances

    def __call__(self, params, batches):
        point, totals = params["player"]["kernel"], np.zeros(2)
        for batch in batches:
            arrays = to_devices(batch, split_batch(self._mesh))
            totals += np.array(jax.device_get(self._distances(point, arrays)))
        return totals

    def summarize(self, totals):
        return {"distance": float(totals[0] / totals[1]), "pictures": float(totals[1])}


class Board:
    """Draws the player as a white pixel."""

    def __init__(self, directory):
        self._directory = directory

    def draw(self, step, params, reporter):
        row, column = np.clip(np.asarray(params["player"]["kernel"]) * 8 + 16, 0, 31).astype(int)
        board = np.zeros((32, 32, 3), np.uint8)
        board[row, column] = 255
        pictures.save(self._directory / f"board_{step:08d}.png", board)
        reporter.picture(step, "board", board)


def stages(workdir: pathlib.Path):
    """Returns three stages. The first is rolled back once, when the player reaches `LIMIT`."""
    long, short = toy_config(), toy_config(steps=8)

    def first(_):
        return Stage(long, workdir, Adversaries(limit=LIMIT))

    def after(before, directory):
        return lambda _: Stage(short, directory, Adversaries(fixed=player_of(before)))

    second, third = workdir / "stages" / "second", workdir / "stages" / "third"
    return [first, after(workdir, second), after(second, third)]


def player_of(directory: pathlib.Path) -> np.ndarray:
    """Returns the player's averaged parameters in the last checkpoint of a stage."""
    with closing(Checkpoints(directory / "checkpoints", read_only=True)) as checkpoints:
        at, place = checkpoints.steps()[-1], replicated(single_device_mesh())
        averages = restore_averages(checkpoints, at, shapes(Adversaries()), place)
    return np.asarray(averages["player"]["kernel"])


def main(workdir: str, coordinator: str = "", count: str = "1", index: str = "0") -> int:
    """Trains the stages; returns the exit status that `vaejax.main` would return."""
    interrupt_on_signal()
    group = processes.ALONE
    if coordinator:
        group = processes.start(Rendezvous(coordinator, int(count), int(index), 60.0))
    with group.watching():
        outcome, _ = train_in_turn(stages(pathlib.Path(workdir)), group)
    group.leave()
    return 0 if outcome is Outcome.FINISHED else TRY_AGAIN


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
