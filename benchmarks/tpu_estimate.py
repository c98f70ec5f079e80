"""What a TPU's compiler says of several shapes: `python -m benchmarks.tpu_estimate --config=…`.

Repeats what `vaejax.aot` does for each config of `--sweep`. As there, nothing is run, and every
rate is an estimate.
"""

import jax
from absl import flags

from benchmarks import report
from benchmarks.sweep import variants
from vaejax import cli
from vaejax.cost.compiled_step import estimate
from vaejax.errors import DoesNotFit
from vaejax.runtime.chips import topology_devices

CONFIG = cli.define_config()
SWEEP = flags.DEFINE_list("sweep", [], "Vary these, in all combinations: batch_size, width, dtype.")
TOPOLOGY = flags.DEFINE_string("topology", "v5e:1x1", "TPU chips to compile for.")
OUT = flags.DEFINE_string("out", None, "A JSON file to keep the table in.")


def main() -> None:
    """Compiles the steps, prints the table and keeps it."""
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_compilation_cache", False)
    devices = topology_devices(TOPOLOGY.value)
    rows = []
    for config in variants(CONFIG.value, SWEEP.value):
        shape = {"widths": config.model.widths, "dtype": config.model.dtype}
        try:
            rows.append({**shape, **estimate(config, devices).figures()})
        except DoesNotFit as error:
            batch = config.train.batch_size // len(devices)
            rows.append({**shape, "batch/chip": batch, "bound by": str(error)})
    print(f"estimates for {TOPOLOGY.value}, from its compiler; nothing was run\n")
    report.show(rows)
    report.keep(rows, OUT.value)


if __name__ == "__main__":
    cli.run(main, required=["config"])
