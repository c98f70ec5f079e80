"""What each part of a ladder's recipe is worth: `python -m benchmarks.ablation --config=…`.

Takes one part out at a time and trains for as many updates as fit into the same time. Their number
follows from the first variant's speed, and for the others from how long a step takes relative to
the first's, measured in turn beforehand. The learning rate decays over exactly these updates.
"""

import pathlib
import statistics
import tempfile
import time
from contextlib import closing

from absl import flags

from benchmarks import report, timing
from benchmarks.recipe import variants
from benchmarks.rivals import worker
from benchmarks.runs import metrics, run_here
from vaejax import cli, data
from vaejax.config import Config
from vaejax.config.saved import to_json
from vaejax.config.settings import changed, resolve
from vaejax.errors import UserError
from vaejax.records.progress import say

CONFIG = cli.define_config()
SECONDS = flags.DEFINE_float("seconds", 600.0, "Seconds of updates in each run.", lower_bound=0)
SEEDS = flags.DEFINE_integer("seeds", 1, "Runs of each variant.", lower_bound=1)
ONLY = flags.DEFINE_list("only", [], "Names of variants, instead of all.")
OUT = flags.DEFINE_string("out", None, "A JSON file to keep the table in.")

# Turns in which a variant's speed is measured beside the first's.
ROUNDS = 15


def images_per_second(configs: dict[str, Config]) -> dict[str, float]:
    """Measures images/s of each variant's training step, in turn with the first variant's.

    Each step runs in a process of its own: some of the programs that share a process are a tenth
    slower than alone.
    """
    first, *others = configs
    with tempfile.TemporaryDirectory() as directory:
        files = {}
        for name, config in configs.items():
            files[name] = pathlib.Path(directory, f"{name}.json")
            files[name].write_text(to_json(config))
        pairs = {}
        for name in others or [first]:
            with started_step(files[first]) as ours, started_step(files[name]) as other:
                pairs[name] = worker.take_turns(ours, other, ROUNDS, SECONDS.value / 200)
    rate, rates = timing.rates_of(pairs)
    return {first: rate} | rates


def started_step(settings: pathlib.Path) -> closing[worker.Worker]:
    """Starts vaejax's training step in a process, for the config in the JSON file `settings`."""
    return closing(worker.Worker("benchmarks.rivals.vaejax_step", str(settings)))


def trained(
    directory: pathlib.Path, name: str, config: Config, steps: int, seed: int
) -> report.Row:
    """Trains one variant once, in `directory`; returns figures of its last validation."""
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
    """Returns the variants named in `only`, or all if it is empty.

    Raises:
      UserError: the model is not a ladder, a variant is unknown, or there is no validation data.
    """
    if not base.model.has_groups:
        raise UserError(f"config.model.name={base.model.name}: only a ladder can be taken apart")
    if "valid" not in data.open_dataset(base.data).splits:
        raise UserError("the data has no validation pictures to compare by")
    known = variants(base)
    if unknown := [name for name in only if name not in known]:
        raise UserError(f"--only={unknown[0]} is none of {', '.join(known)}")
    return {name: known[name] for name in only or known}


def main() -> None:
    """Times and trains the variants, prints the table and keeps it."""
    configs = chosen(resolve(CONFIG.value), ONLY.value)
    rates = images_per_second(configs)
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for name, config in configs.items():
            dispatch = config.train.steps_per_dispatch
            pictures = SECONDS.value * rates[name]
            steps = dispatch * max(1, round(pictures / config.train.batch_size / dispatch))
            say(f"without {name}: {steps} updates, {rates[name]:.0f} images/s")
            runs = [
                trained(pathlib.Path(scratch), name, config, steps, seed)
                for seed in range(SEEDS.value)
            ]
            figures = {key: statistics.mean(run[key] for run in runs) for key in runs[0]}
            bits = [run["bits/dim"] for run in runs]
            comparison = {
                "worse than the first by": figures["bits/dim"] - (rows or [figures])[0]["bits/dim"],
                "of each seed": ", ".join(f"{value:.3f}" for value in bits),
            }
            rows.append({"without": name, "steps": steps, **figures, **comparison})
    report.show(rows)
    report.keep(rows, OUT.value)


if __name__ == "__main__":
    cli.run(main, required=["config"])
