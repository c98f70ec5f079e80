"""Speed of the input pipeline: `python -m benchmarks.input_throughput --config=…`.

Measures decoding with one thread, building the cache with all cores, serving batches from it, and a
real run beside the compiled step alone, which shows what waiting for data and the host's other work
cost.
"""

import itertools
import pathlib
import statistics
import tempfile
import time
from contextlib import suppress

import numpy as np
from absl import flags

from benchmarks import report, timing
from benchmarks.programs import Step
from benchmarks.runs import finished_run, metrics
from vaejax import cli, data
from vaejax.config import Config
from vaejax.config.settings import resolve
from vaejax.data.cache.building import available_cores
from vaejax.data.feed import pipeline
from vaejax.data.pictures.decoding import UnusablePicture, decode, quiet_pillow
from vaejax.data.sources.opening import open_source
from vaejax.tasks.vae import VAETask

CONFIG = cli.define_config()
SECONDS = flags.DEFINE_float(
    "seconds", 5.0, "Seconds to measure each of decoding, serving and the step.", lower_bound=0
)
STEPS = flags.DEFINE_integer("steps", 200, "Steps of the real run.", lower_bound=8)
OUT = flags.DEFINE_string("out", None, "A JSON file to keep the table in.")

# Pictures of a small set; serving it should take as much memory as serving the whole set.
FEW = 2_000


def decoding(config: Config, seconds: float) -> report.Row:
    """Measures reading, decoding, cropping and resizing with one thread."""
    settings = config.data
    chunks = open_source(settings).contents().chunks(64)
    done, start = 0, time.perf_counter()
    with quiet_pillow():
        for item in itertools.chain.from_iterable(chunk.items() for chunk in chunks):
            with suppress(UnusablePicture):
                decode(
                    item.read(),
                    image_size=settings.image_size,
                    channels=settings.channels,
                    crop=settings.crop,
                    max_pixels=settings.max_pixels,
                )
                done += 1
            if time.perf_counter() - start > seconds:
                break
    return _row("decode, one thread", done, time.perf_counter() - start)


def building(config: Config) -> tuple[report.Row, data.Dataset]:
    """Measures decoding the whole set into an empty cache, with all cores."""
    start = time.perf_counter()
    dataset = data.open_dataset(config.data)
    seconds = time.perf_counter() - start
    done = sum(len(split.images) for split in dataset.splits.values())
    return _row(f"build the cache, {available_cores()} cores", done, seconds), dataset


def serving(config: Config, images: np.ndarray, seconds: float, feed: str) -> report.Row:
    """Measures shuffled batches from the cache, as the training loop takes them.

    Args:
      config: its `train.batch_size` is used.
      images: uint8 pictures, [picture, height, width, channel].
      seconds: how long to measure.
      feed: one of the names of `pipeline.feeds()`.
    """
    batches = pipeline.train_batches(
        {"image": images},
        seed=0,
        batch_size=config.train.batch_size,
        feed=pipeline.feeds()[feed],
    )
    next(batches)
    done, start = 0, time.perf_counter()
    while done == 0 or time.perf_counter() - start < seconds:
        done += len(next(batches)["image"])
    row = _row(f"serve from the cache, {feed}", done, time.perf_counter() - start)
    return row | {"set": len(images), "own memory MB": _own_megabytes()}


def stepping(program: Step, seconds: float) -> report.Row:
    """Measures the compiled step on pictures that lie on the device."""
    times = timing.in_turn({"step": program}, repeats=3, seconds=seconds / 3)["step"]
    return {"what": "the step alone", "images/s": program.pictures / statistics.median(times)}


def running(steps: int, cache: str) -> report.Row:
    """Measures a real run, and at most what share of its time its devices wait for batches.

    Raises:
      UserError: the run failed; the message has its last line.
    """
    with tempfile.TemporaryDirectory() as directory:
        workdir = pathlib.Path(directory, "run")
        finished_run(
            workdir,
            f"data.cache_dir={cache}",
            f"train.steps={steps}",
            f"train.log_every={max(1, steps // 4)}",
            "prior.fitted=()",
        )
        # A window whose only step was the first, which is compiled, has no rate.
        windows = [line for line in metrics(workdir, "train") if "data_wait" in line]
    return {
        "what": f"a run of {steps} steps",
        "images/s": float(np.mean([window["images_per_second"] for window in windows])),
        "wait %": 100 * float(np.mean([window["data_wait"] for window in windows])),
    }


def main() -> None:
    """Measures, prints the table and keeps it."""
    with tempfile.TemporaryDirectory() as cache:
        values = CONFIG.value.to_dict()
        values["data"]["cache_dir"] = cache
        config = resolve(values)
        rows = [decoding(config, SECONDS.value)]
        built, dataset = building(config)
        images = dataset.splits["train"].images
        rows.append(built)
        for part, feed in itertools.product((images[:FEW], images), pipeline.feeds()):
            rows.append(serving(config, part, SECONDS.value, feed))
        # Before the run and after it, because a machine's speed drifts.
        program = Step(VAETask(config), config)
        before = stepping(program, SECONDS.value)
        run = running(STEPS.value, cache)
        after = stepping(program, SECONDS.value)
    run["of the step %"] = 200 * run["images/s"] / (before["images/s"] + after["images/s"])
    rows += [before, run, after]
    report.show(rows)
    report.keep(rows, OUT.value)


def _row(what: str, pictures: int, seconds: float) -> report.Row:
    return {"what": what, "images/s": pictures / seconds}


def _own_megabytes() -> float | None:
    """Returns this process's anonymous memory in MB; None where /proc does not tell.

    Mapped files are left out, because the kernel can drop pages of the cache at any time.
    """
    try:
        status = pathlib.Path("/proc/self/status").read_text()
    except OSError:
        return None
    (kilobytes,) = [line.split()[1] for line in status.splitlines() if line.startswith("RssAnon")]
    return int(kilobytes) * 1024 / 1e6


if __name__ == "__main__":
    cli.run(main, required=["config"])
