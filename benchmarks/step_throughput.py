"""Speed of the whole compiled training step: `python -m benchmarks.step_throughput --config=…`.

Encoder, decoder, prior, likelihood, gradients, optimiser and averaging, on pictures that lie on
the device already. Nothing is read from disk, and TensorFlow is not imported.
"""

import resource
import statistics
import sys

import jax
from absl import flags
from ml_collections import config_flags

from benchmarks import report, timing
from benchmarks.programs import Step
from benchmarks.sweep import variants
from vaejax import cli
from vaejax.models import build_model

CONFIG = config_flags.DEFINE_config_file("config", None, "The run's settings, a Python file.")
SWEEP = flags.DEFINE_list("sweep", [], "Vary these, in all combinations: batch_size, width, dtype.")
REPEATS = flags.DEFINE_integer("repeats", 7, "Rounds, all variants in turn.", lower_bound=1)
SECONDS = flags.DEFINE_float("seconds", 2.0, "Of each variant in a round.", lower_bound=0)
OUT = flags.DEFINE_string("out", None, "A JSON file to keep the table in.")

# Dense bfloat16 operations a second, by JAX's `device_kind`, as the makers state them.
PEAKS = {
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5": 459e12,
    "TPU v6 lite": 918e12,
    "NVIDIA A100-SXM4-40GB": 312e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H200": 989e12,
    "NVIDIA L4": 121e12,
}


def row(program: Step, times: list[float], product_rate: float) -> report.Row:
    """What was measured, of one call in each round."""
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
    peak = PEAKS.get(jax.devices()[0].device_kind)
    if peak:
        row["MFU %"] = 100 * rate / (peak * jax.device_count())
    return row


def main() -> None:
    """Measures, prints and keeps."""
    configs = variants(CONFIG.value, SWEEP.value)
    compiled = [Step(build_model(config), config) for config in configs]
    product, operations = timing.large_product(compiled[0].config.model.dtype)
    programs = {str(i): program for i, program in enumerate(compiled)}
    times = timing.in_turn(
        programs | {"product": product}, repeats=REPEATS.value, seconds=SECONDS.value
    )
    product_rate = operations / statistics.median(times["product"]) * jax.device_count()
    rows = [row(program, times[name], product_rate) for name, program in programs.items()]
    report.show(rows)
    print(f"\nlarge matrix product: {product_rate / 1e9:,.0f} GFLOP/s; peak host memory: "
          f"{_peak_host_megabytes():,.0f} MB", end="")  # fmt: skip
    device = jax.devices()[0].memory_stats()
    print(f"; peak device memory: {device['peak_bytes_in_use'] / 1e6:,.0f} MB" if device else "")
    report.keep(rows, OUT.value)


def _peak_host_megabytes() -> float:
    # macOS counts in bytes, Linux in kilobytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


if __name__ == "__main__":
    cli.run(main, required=["config"])
