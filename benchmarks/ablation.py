"""What each part of a ladder's recipe is worth: `python -m benchmarks.ablation --config=…`.

Takes one part out at a time and trains for as many updates as fit into the same time: the first
variant's by its speed, another's by how long its step takes beside the first's, measured in turn
before. The learning rate falls over just these.
"""

import pathlib
import statistics
import tempfile
import time

from absl import flags
from ml_collections import config_flags

from benchmarks import report, timing
from benchmarks.programs import Step
from benchmarks.recipe import variants
from benchmarks.runs import metrics, run_here
from vaejax import cli, data
from vaejax.config import Config
from vaejax.errors import UserError
from vaejax.models import build_model
from vaejax.progress import say
from vaejax.settings import changed, resolve

CONFIG = config_flags.DEFINE_config_file("config", None, "The run's settings, a Python file.")
SECONDS = flags.DEFINE_float("seconds", 600.0, "Of updates in each run.", lower_bound=0)
SEEDS = flags.DEFINE_integer("seeds", 1, "Runs of each variant.", lower_bound=1)
ONLY = flags.DEFINE_list("only", [], "Names of variants, instead of all.")
OUT = flags.DEFINE_string("out", None, "A JSON file to keep the table in.")

# Rounds of timing, and seconds of each variant in a round at most.
ROUNDS, ROUND_SECONDS = 15, 2.0


def seconds_per_step(configs: dict[str, Config]) -> dict[str, float]:
    """Of each variant's compiled step, measured in turn."""
    programs = {name: Step(build_model(config), config) for name, config in configs.items()}
    seconds = min(ROUND_SECONDS, SECONDS.value / 100)
    times = timing.in_turn(programs, repeats=ROUNDS, seconds=seconds)
    dispatches = {name: config.train.steps_per_dispatch for name, config in configs.items()}
    return {name: value / dispatches[name] for name, value in timing.by_ratio(times).items()}


def trained(
    directory: pathlib.Path, name: str, config: Config, steps: int, seed: int
) -> report.Row:
    """Trains one variant once; its last validation."""
    workdir = directory / f"{name.replace(' ', '_')}_{seed}"
    begin = time.monotonic()
    settings = {"steps": steps, "eval_every": steps, "save_every": steps, "seed": seed}
    run_here(changed(config, {f"train.{key}": value for key, value in settings.items()}), workdir)
    valid = metrics(workdir, "valid")[-1]
    say(f"without {name}, seed {seed}: {valid['elbo_bits_per_dim']:.4f} bits/dim")
    return {
        "minutes": (time.monotonic() - begin) / 60,
        "bits/dim": valid["elbo_bits_per_dim"],
        "KL nats": valid["kl_nats"],
        "PSNR": valid["psnr"],
    }


def chosen(base: Config, only: list[str]) -> dict[str, Config]:
    """The variants asked for.

    Raises:
      UserError: the config is of no ladder, there is no such variant, or no validation pictures.
    """
    if base.model.name != "ladder":
        raise UserError(f"config.model.name={base.model.name}: only a ladder can be taken apart")
    if "valid" not in data.open_dataset(base.data).splits:
        raise UserError("the data has no validation pictures to compare by")
    known = variants(base)
    if unknown := [name for name in only if name not in known]:
        raise UserError(f"--only={unknown[0]} is none of {', '.join(known)}")
    return {name: known[name] for name in only or known}


def main() -> None:
    """Times, trains, prints and keeps."""
    configs = chosen(resolve(CONFIG.value), ONLY.value)
    speeds = seconds_per_step(configs)
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for name, config in configs.items():
            dispatch = config.train.steps_per_dispatch
            steps = dispatch * max(1, round(SECONDS.value / speeds[name] / dispatch))
            say(f"without {name}: {steps} updates of {1e3 * speeds[name]:.0f} ms")
            runs = [
                trained(pathlib.Path(scratch), name, config, steps, seed)
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
