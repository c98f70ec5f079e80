"""vaejax against its rivals, side by side: `python -m benchmarks.versus --config=…`.

Speed: vaejax's whole training step and the rival's take turns, A B A B, each in a process of its
own; the ratio is the median over the pairs of turns. The rivals:

  strided   the textbook network in JAX, strided and transposed convolutions, equal FLOPs
  pytorch   vaejax's architecture, parameters, loss and batch in PyTorch
  compiled  the same under `torch.compile`
  pythae    pythae's own VAE for CelebA, as its users run it

Quality, with --minutes=M: pythae trains on the config's pictures for M minutes. How long does
vaejax take until a validation shows no less PSNR and no more bits/dim?

All rivals but `strided` need `pip install -e '.[versus]'`.
"""

import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from benchmarks import report, timing
from benchmarks.rivals.worker import Worker, take_turns
from benchmarks.runs import Run, start_run
from vaejax import cli, data, objectives
from vaejax.config import Config
from vaejax.config.saved import to_json
from vaejax.config.settings import resolve
from vaejax.errors import UserError
from vaejax.likelihoods import DiscretizedLogistic, Pixels
from vaejax.metrics.image import psnr
from vaejax.records.progress import say

RIVALS = {
    "strided": ("benchmarks.rivals.strided",),
    "pytorch": ("benchmarks.rivals.pytorch",),
    "compiled": ("benchmarks.rivals.pytorch", "--compile"),
    "pythae": ("benchmarks.rivals.pythae_celeba",),
}

CONFIG = cli.define_config()
AGAINST = flags.DEFINE_list("rivals", list(RIVALS), f"Rivals, some of {', '.join(RIVALS)}.")
REPEATS = flags.DEFINE_integer("repeats", 7, "Pairs of turns with each rival.", lower_bound=1)
SECONDS = flags.DEFINE_float("seconds", 5.0, "Seconds of each turn.", lower_bound=0)
PYTHAE_BATCH = flags.DEFINE_integer(
    "pythae_batch", 100, "Batch size of pythae; its examples have 100.", lower_bound=1
)
MINUTES = flags.DEFINE_float("minutes", 0.0, "Minutes that pythae trains; 0: none.", lower_bound=0)
EVAL_EVERY = flags.DEFINE_integer(
    "eval_every", 100, "Steps between vaejax's validations, with --minutes.", lower_bound=1
)
# Compiled once for all scales that are tried.
_LIKELIHOOD = jax.jit(DiscretizedLogistic().log_prob)

OUT = flags.DEFINE_string("out", None, "A JSON file to keep the table in.")


def speed(rival: str, ours: Worker, settings: pathlib.Path) -> report.Row:
    """Measures the speed of one rival and of vaejax, in turn.

    Args:
      rival: one of `RIVALS`.
      ours: the process of vaejax's step.
      settings: JSON file of the config.

    Raises:
      UserError: the rival did not start, or ended; the message has its last line.
    """
    say(f"taking turns with {rival}")
    module, *options = RIVALS[rival]
    if rival == "pythae":
        options = [f"--batch={PYTHAE_BATCH.value}"]
    with closing(Worker(module, str(settings), *options)) as other:
        pairs = take_turns(ours, other, REPEATS.value, SECONDS.value)
    ratios = [mine / theirs for mine, theirs in pairs]
    return {
        "rival": rival,
        "its parameters": other.facts["parameters"],
        "its MFLOP/image": other.facts.get("mflop_per_image"),
        "vaejax images/s": statistics.median(mine for mine, _ in pairs),
        "rival images/s": statistics.median(theirs for _, theirs in pairs),
        "ratio": statistics.median(ratios),
        "spread %": 100 * timing.spread(ratios),
    }


def rival_quality(config: Config, settings: pathlib.Path, minutes: float) -> report.Row:
    """Trains pythae's VAE for some minutes, and measures it on the validation pictures.

    Its Gaussian has no scale that would make its loss a likelihood of pictures, so it is given the
    discretised logistic with the one scale that suits these very pictures best.

    Raises:
      UserError: pythae failed; the message has its last line.
    """
    images = data.open_dataset(config.data).splits["valid"].images
    say(f"pythae trains for {minutes:g} minutes")
    with tempfile.TemporaryDirectory() as directory:
        out = pathlib.Path(directory, "reconstructions.npz")
        command = [
            sys.executable, "-m", *RIVALS["pythae"], str(settings),
            f"--batch={PYTHAE_BATCH.value}", f"--minutes={minutes}", f"--out={out}",
        ]  # fmt: skip
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode:
            raise UserError(f"pythae failed: {result.stderr.strip().splitlines()[-1]}")
        made = np.load(out)
        shown, sample, kl = made["mean"], made["sample"], float(np.mean(made["kl"]))
    squared = (sample / 255.0 - images / 255.0) ** 2
    scales = np.geomspace(0.02, 0.5, 60)
    best = max(_log_likelihood(images, sample, float(np.log(scale))) for scale in scales)
    return {
        "who": "pythae",
        "seconds": 60.0 * minutes,
        "PSNR": float(np.mean(psnr(images, np.round(shown)))),
        "bits/dim": objectives.bits_per_dim(best - kl, images[0].size),
        "KL nats": kl,
        "its own loss": 0.5 * float(np.mean(np.sum(squared, axis=(1, 2, 3)))) + kl,
    }


def _log_likelihood(images: np.ndarray, shown: np.ndarray, log_scale: float) -> float:
    """Returns the log-likelihood of a picture in nats, the mean over pictures."""
    scale = jnp.full((1, 1, 1, 1), log_scale, jnp.float32)
    sums = [
        np.asarray(_LIKELIHOOD(some, Pixels(jnp.asarray(made / 127.5 - 1.0), scale)), np.float64)
        for some, made in zip(np.array_split(images, 20), np.array_split(shown, 20))
    ]
    return float(np.mean(np.concatenate(sums)))


def our_time(psnr: float, bits: float) -> report.Row:
    """Measures the seconds until a validation of `vaejax.main` is as good as the rival's.

    Args:
      psnr: PSNR to reach, dB.
      bits: bits/dim to reach, an upper limit.

    Raises:
      UserError: the run failed, or ended before it was as good.
    """
    say(f"vaejax trains until {psnr:.2f} dB and {bits:.3f} bits/dim")
    with tempfile.TemporaryDirectory() as directory:
        workdir = pathlib.Path(directory, "run")
        with start_run(workdir, f"train.eval_every={EVAL_EVERY.value}") as run:
            for seconds, found in _validations(run, workdir):
                if found["psnr"] >= psnr and found["elbo_bits_per_dim"] <= bits:
                    return {
                        "who": "vaejax",
                        "seconds": seconds,
                        "PSNR": found["psnr"],
                        "bits/dim": found["elbo_bits_per_dim"],
                        "KL nats": found["kl_nats"],
                    }
            run.check()
    raise UserError(f"vaejax ended before it reached {psnr:.2f} dB and {bits:.3f} bits/dim")


def _validations(run: Run, workdir: pathlib.Path) -> Iterator[tuple[float, dict[str, float]]]:
    """Yields (seconds, metrics) of each validation, counted from the end of the first step.

    This leaves out what came before, mostly compilation, but includes the validations themselves.
    """
    for line in run.lines():
        if line.startswith("first step done"):
            started = time.perf_counter()
        elif "validation:" in line:
            seconds = time.perf_counter() - started
            rows = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
            yield seconds, [row for row in rows if row["split"] == "valid"][-1]


def main() -> None:
    """Measures, prints the tables and keeps them."""
    if unknown := [name for name in AGAINST.value if name not in RIVALS]:
        raise UserError(f"--rivals={unknown[0]} is none of {', '.join(RIVALS)}")
    config = resolve(CONFIG.value)
    with tempfile.TemporaryDirectory() as directory:
        settings = pathlib.Path(directory, "settings.json")
        settings.write_text(to_json(config))
        rows = []
        if AGAINST.value:
            with closing(Worker("benchmarks.rivals.vaejax_step", str(settings))) as ours:
                print(f"vaejax: {ours.facts['parameters']:,} parameters, "
                      f"{ours.facts['mflop_per_image']:.0f} MFLOP/image\n")  # fmt: skip
                rows = [speed(rival, ours, settings) for rival in AGAINST.value]
            report.show(rows)
        if MINUTES.value:
            theirs = rival_quality(config, settings, MINUTES.value)
            quality = [theirs, our_time(theirs["PSNR"], theirs["bits/dim"])]
            print()
            report.show(quality)
            rows += quality
    report.keep(rows, OUT.value)


if __name__ == "__main__":
    cli.run(main, required=["config"])
