"""Speed of the whole compiled training step: `python -m benchmarks.step_throughput --config=…`.

The step comprises encoder, decoder, prior, likelihood, gradients, optimiser and averaging, on
pictures that lie on the device already. Nothing is read from disk, and TensorFlow is not imported.
"""

import resource
import statistics
import sys

import jax
from absl import flags

from benchmarks import report, timing
from benchmarks.programs import Step
from benchmarks.sweep import variants
from vaejax import cli
from vaejax.runtime.chips import chip_of
from vaejax.tasks.vae import VAETask

CONFIG = cli.define_config()
SWEEP = flags.DEFINE_list("sweep", [], "Vary these, in all combinations: batch_size, width, dtype.")
REPEATS = flags.DEFINE_integer("repeats", 7, "Rounds of all variants in turn.", lower_bound=1)
SECONDS = flags.DEFINE_float("seconds", 2.0, "Seconds of each variant in a round.", lower_bound=0)
OUT = flags.DEFINE_string("out", None, "A JSON file to keep the table in.")


def row(program: Step, times: list[float], product_rate: float) -> report.Row:
    """Returns the table's row for one program.

    Args:
      program: the compiled step.
      times: seconds of one call, in each round.
      product_rate: FLOP/s of a large matrix product in the same dtype, on all devices.
    """
    seconds = statistics.median(times)
    rate = program.flops / seconds
    memory = program.program.memory_analysis()
    row = {
        "batch": program.config.train.batch_size,
        "widths": program.config.model.widths,
        "dtype": program.config.model.dtype,
        "parameters": program.parameters,
        "images/s": program.pictures / seconds,
        "ms/step": 1e3 * seconds / program.config.train.steps_per_dispatch,
        "spread %": 100 * timing.spread(times),
        "compile s": program.compile_seconds,
        "program MB": (memory.temp_size_in_bytes + memory.argument_size_in_bytes) / 1e6,
        "MFLOP/image": program.flops / program.pictures / 1e6,
        "GFLOP/s": rate / 1e9,
        "of matmul %": 100 * rate / product_rate,
    }
    if chip := chip_of(jax.devices()[0]):
        row["MFU %"] = 100 * rate / (chip.flops * jax.device_count())
    return row


def main() -> None:
    """Measures, prints the table and keeps it."""
    configs = variants(CONFIG.value, SWEEP.value)
    compiled = [Step(VAETask(config), config) for config in configs]
    programs = {str(i): program for i, program in enumerate(compiled)}
    products = {dtype: timing.large_product(dtype) for dtype in map(_dtype, compiled)}
    multiply = {dtype: product for dtype, (product, _) in products.items()}
    times = timing.in_turn(programs | multiply, repeats=REPEATS.value, seconds=SECONDS.value)
    rates = {
        dtype: operations / statistics.median(times[dtype]) * jax.device_count()
        for dtype, (_, operations) in products.items()
    }
    rows = [row(one, times[name], rates[_dtype(one)]) for name, one in programs.items()]
    report.show(rows)
    each = ", ".join(f"{rate / 1e9:,.0f} GFLOP/s in {dtype}" for dtype, rate in rates.items())
    print(f"\nlarge matrix product: {each}; peak host memory: "
          f"{_peak_host_megabytes():,.0f} MB", end="")  # fmt: skip
    device = jax.devices()[0].memory_stats()
    print(f"; peak device memory: {device['peak_bytes_in_use'] / 1e6:,.0f} MB" if device else "")
    report.keep(rows, OUT.value)


def _dtype(program: Step) -> str:
    return program.config.model.dtype


def _peak_host_megabytes() -> float:
    # macOS counts in bytes, Linux in KiB.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


if __name__ == "__main__":
    cli.run(main, required=["config"])
