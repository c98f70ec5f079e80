"""What each part of a ladder's recipe is worth: `python -m benchmarks.ablation --config=…`.

Takes one part out at a time and trains for as many updates as fit into the same time: the first
variant's by its speed, another's by how long its step takes beside the first's, measured in turn
before. The learning rate falls over just these.
"""

import pathlib
import statistics
import tempfile
import time
from typing import Any

import ml_collections
from absl import flags
from ml_collections import config_flags

from benchmarks import report, timing
from benchmarks.programs import Step
from benchmarks.recipe import variants
from benchmarks.runs import finished_run, metrics
from vaejax import cli
from vaejax.config import Config
from vaejax.errors import UserError
from vaejax.fitting import changed
from vaejax.models import build_model
from vaejax.progress import say
from vaejax.settings import resolve

CONFIG = config_flags.DEFINE_config_file("config", None, "The run's settings, a Python file.")
SECONDS = flags.DEFINE_float("seconds", 600.0, "Of updates in each run.", lower_bound=0)
SEEDS = flags.DEFINE_integer("seeds", 1, "Runs of each variant.", lower_bound=1)
ONLY = flags.DEFINE_list("only", [], "Names of variants, instead of all.")
OUT = flags.DEFINE_string("out", None, "A JSON file to keep the table in.")

# Rounds of timing, and seconds of each variant in a round at most.
ROUNDS, ROUND_SECONDS = 15, 2.0


def seconds_per_step(configs: dict[str, Config]) -> dict[str, float]:
    """Of each variant's compiled step, by its ratio to the first's in the same round."""
    programs = {name: Step(build_model(config), config) for name, config in configs.items()}
    seconds = min(ROUND_SECONDS, SECONDS.value / 100)
    times = timing.in_turn(programs, repeats=ROUNDS, seconds=seconds)
    first = next(iter(times.values()))
    ratios = {
        name: statistics.median(value / other for value, other in zip(values, first))
        for name, values in times.items()
    }
    of_first = statistics.median(first) / next(iter(configs.values())).train.steps_per_dispatch
    return {name: of_first * ratio for name, ratio in ratios.items()}


def trained(
    directory: pathlib.Path, name: str, changes: dict[str, Any], steps: int, seed: int
) -> report.Row:
    """Trains one variant once; its last validation."""
    workdir = directory / f"{name.replace(' ', '_')}_{seed}"
    begin = time.monotonic()
    settings = {"steps": steps, "eval_every": steps, "save_every": steps, "seed": seed}
    settings = changes | {f"train.{key}": value for key, value in settings.items()}
    finished_run(workdir, *(f"{key}={value}" for key, value in settings.items()))
    valid = metrics(workdir, "valid")[-1]
    say(f"without {name}, seed {seed}: {valid['elbo_bits_per_dim']:.4f} bits/dim")
    return {
        "minutes": (time.monotonic() - begin) / 60,
        "bits/dim": valid["elbo_bits_per_dim"],
        "KL nats": valid["kl_nats"],
        "PSNR": valid["psnr"],
    }


def chosen(config: ml_collections.ConfigDict, only: list[str]) -> dict[str, dict[str, Any]]:
    """The variants asked for.

    Raises:
      UserError: the config is of no ladder, or there is no such variant.
    """
    base = resolve(config)
    if base.model.name != "ladder":
        raise UserError(f"config.model.name={base.model.name}: only a ladder can be taken apart")
    known = variants(base)
    if unknown := [name for name in only if name not in known]:
        raise UserError(f"--only={unknown[0]} is none of {', '.join(known)}")
    return {name: known[name] for name in only or known}


def main() -> None:
    """Times, trains, prints and keeps."""
    parts = chosen(CONFIG.value, ONLY.value)
    base = resolve(CONFIG.value)
    speeds = seconds_per_step({name: changed(base, changes) for name, changes in parts.items()})
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for name, changes in parts.items():
            dispatch = base.train.steps_per_dispatch
            steps = dispatch * max(1, round(SECONDS.value / speeds[name] / dispatch))
            say(f"without {name}: {steps} updates of {1e3 * speeds[name]:.0f} ms")
            runs = [
                trained(pathlib.Path(scratch), name, changes, steps, seed)
                for seed in range(SEEDS.value)
            ]
            figures = {key: statistics.mean(run[key] for run in runs) for key in runs[0]}
            bits = [run["bits/dim"] for run in runs]
            comparison = {
                "worse than the first by": figures["bits/dim"] - (rows or [figures])[0]["bits/dim"],
                "seeds apart by": max(bits) - min(bits),
            }
            rows.append({"without": name, "steps": steps, **figures, **comparison})
    report.show(rows)
    report.keep(rows, OUT.value)


if __name__ == "__main__":
    cli.run(main, required=["config"])
