"""Whether a deep, narrow ladder in bfloat16 ever breaks: `python -m benchmarks.stability`.

Trains a ladder of 42 groups on procedural faces at 32 px, from several seeds, at the published
learning rate of 1e-3 and at three times that, undisturbed and with the gradients of random updates
poisoned: some are not finite, in others the KL term weighs a million times too much.
"""

import pathlib
import tempfile
import zlib
from collections.abc import Callable
from unittest import mock

import jax.numpy as jnp
import ml_collections
import numpy as np
from absl import flags

from benchmarks import report
from benchmarks.runs import metrics, run_here
from vaejax import cli
from vaejax.config import Config, ladder_config
from vaejax.config.settings import resolve
from vaejax.errors import TrainingError
from vaejax.records.progress import say
from vaejax.tasks.vae import task
from vaejax.training.recovery import MAX_ROLLBACKS

SEEDS = flags.DEFINE_integer("seeds", 5, "Number of seeds, counted from 0.", lower_bound=1)
# One update in so many is poisoned.
POISONED = 50
STEPS = flags.DEFINE_integer("steps", 2_000, "Updates of each run.", lower_bound=POISONED)
RATES = flags.DEFINE_multi_float(
    "rate", [1e-3, 3e-3], "Learning rate; may be given more than once.", lower_bound=0
)
OUT = flags.DEFINE_string("out", None, "A JSON file to keep the table in.")

# A run has diverged when, past its first tenth, a window is so many bits/dim above its best.
DIVERGED = 1.0


def settings(seed: int, learning_rate: float, steps: int) -> ml_collections.ConfigDict:
    """Returns a ladder too deep for its width, and small enough for a CPU to train 20 times."""
    config = ladder_config()
    config.data.image_size = (32, 32)
    config.data.synthetic_counts = (4_000, 0, 0)
    config.model.patch = 4
    # At 8, 4, 2 and 1 px.
    config.model.widths = (32, 32, 32, 32)
    config.model.blocks = (6, 10, 14, 12)
    config.model.dtype = "bfloat16"
    config.model.latent = 4
    # Otherwise a CPU, which computes bfloat16 in float32, converts all that a loop keeps for the
    # gradient in each iteration.
    config.model.remat = True
    config.likelihood.components = 5
    config.objective.warmup_steps = 200
    config.optimizer.learning_rate = learning_rate
    # A constant rate: a decaying one would help.
    config.optimizer.final_fraction = 1.0
    config.train.seed = seed
    config.train.batch_size = 8
    config.train.steps = steps
    config.train.log_every = 20
    config.train.eval_every = config.train.save_every = steps
    return config


def poison(steps: int, seed: int) -> Callable:
    """Returns `beta_at`, times NaN, infinity or 1e6 in one of `POISONED` updates at random."""
    rng = np.random.default_rng(seed)
    table = np.ones(steps, np.float32)
    chosen = rng.choice(steps, steps // POISONED, replace=False)
    table[chosen] = rng.choice([np.nan, np.inf, 1e6], len(chosen))
    good, factors = task.beta_at, jnp.asarray(table)
    return lambda settings, at: good(settings, at) * factors[at]


def poison_seed(config: Config) -> int:
    """Returns the seed of the poisoned updates, another one for each run."""
    return zlib.crc32(b"poison") + config.train.seed


def run(config: Config, poisoned: bool) -> dict[str, float | bool]:
    """Trains once; returns `verdict` of its metrics, and whether the run gave up ("broke")."""
    weight = task.beta_at
    if poisoned:
        weight = poison(config.train.steps, poison_seed(config))
    with tempfile.TemporaryDirectory() as directory:
        workdir = pathlib.Path(directory)
        broke = False
        with mock.patch.object(task, "beta_at", weight):
            try:
                run_here(config, workdir)
            except TrainingError as error:
                say(str(error))
                broke = True
        return {"broke": broke} | verdict(metrics(workdir, "train"), config.train.steps)


def verdict(windows: list[dict], steps: int) -> dict[str, float | bool]:
    """Returns what a run's windows of training metrics show.

    Args:
      windows: training metrics of each log, in order; empty if no update was applied.
      steps: number of updates of the run.
    """
    if not windows:  # no update was ever applied, or all were taken back
        windows = [dict.fromkeys(("elbo_bits_per_dim", "kl_nats"), np.nan)]
        windows[0] |= {"rollbacks": MAX_ROLLBACKS, "skipped": steps}
    bits = np.array([line["elbo_bits_per_dim"] for line in windows])
    # Not `bits > ...`: a comparison with NaN is false, and NaN has diverged as well.
    fine = bits <= np.minimum.accumulate(bits) + DIVERGED
    return {
        "diverged": not np.all(fine[len(bits) // 10 :]),
        "rollbacks": windows[-1]["rollbacks"],
        "skipped": windows[-1]["skipped"],
        "start": bits[0],
        "end": bits[-5:].mean(),
        "kl": np.mean([line["kl_nats"] for line in windows[-5:]]),
    }


def main() -> None:
    """Trains the runs, prints the table and keeps it."""
    rows = []
    for rate in RATES.value:
        for poisoned in (False, True):
            say(f"learning rate {rate:g}, {'poisoned' if poisoned else 'undisturbed'}")
            configs = [resolve(settings(seed, rate, STEPS.value)) for seed in range(SEEDS.value)]
            runs = [run(config, poisoned) for config in configs]
            rows.append(
                {
                    "learning rate": rate,
                    "poisoned updates": STEPS.value // POISONED if poisoned else 0,
                    "runs": len(runs),
                    "broke": sum(one["broke"] for one in runs),
                    "diverged": sum(one["diverged"] for one in runs),
                    "rollbacks": sum(one["rollbacks"] for one in runs),
                    "updates skipped": max(one["skipped"] for one in runs),
                    "bits/dim at first": float(np.mean([one["start"] for one in runs])),
                    "at last": float(np.mean([one["end"] for one in runs])),
                    "worst": float(np.max([one["end"] for one in runs])),
                    "KL nats at last": float(np.mean([one["kl"] for one in runs])),
                }
            )
    report.show(rows)
    report.keep(rows, OUT.value)


if __name__ == "__main__":
    cli.run(main)
