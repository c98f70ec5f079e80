"""What a TPU's compiler says of the training step: `python -m benchmarks.tpu_estimate --config=…`.

Needs no TPU, only its compiler: `pip install -e '.[tpu]'`. The real step is compiled for one chip.
Operations over the chip's rate and bytes over its bandwidth bound the speed from above (Williams,
Waterman and Patterson 2009); nothing is run, so every figure is an estimate.
"""

import os

import jax
from absl import flags
from jax.experimental import topologies
from jax.sharding import Mesh
from ml_collections import config_flags

from benchmarks import report
from benchmarks.memory_spaces import traffic
from benchmarks.programs import traced_step
from benchmarks.sweep import variants
from vaejax import cli
from vaejax.config import Config
from vaejax.errors import UserError
from vaejax.flops import matmul_flops
from vaejax.models import build_model
from vaejax.parallel import make_mesh

# bfloat16 operations and bytes of HBM a second of one chip, as the maker states them, and a
# topology that has such chips.
CHIPS = {
    "v5e": (197e12, 819e9, "v5e:2x2"),
    "v5p": (459e12, 2765e9, "v5p:2x2x1"),
    "v6e": (918e12, 1640e9, "v6e:2x2"),
}

CONFIG = config_flags.DEFINE_config_file("config", None, "The run's settings, a Python file.")
SWEEP = flags.DEFINE_list("sweep", [], "Vary these, in all combinations: batch_size, width, dtype.")
CHIP = flags.DEFINE_enum("chip", "v5e", list(CHIPS), "Which TPU.")
OUT = flags.DEFINE_string("out", None, "A JSON file to keep the table in.")


def estimate(config: Config, mesh: Mesh, operations: float, bandwidth: float) -> report.Row:
    """What one step costs a chip that does `operations` and moves `bandwidth` bytes a second."""
    model, batch = build_model(config), config.train.batch_size
    traced = traced_step(model, config, mesh)
    compiled = traced.lower(lowering_platforms=("tpu",)).compile()
    memory, moved = compiled.memory_analysis(), traffic(compiled.as_text())
    flops = matmul_flops(traced.jaxpr)
    arithmetic, transfers = flops / operations, moved.hbm / bandwidth
    return {
        "batch": batch,
        "widths": config.model.widths,
        "dtype": config.model.dtype,
        "MFLOP/image": flops / batch / 1e6,
        "HBM MB/image": moved.hbm / batch / 1e6,
        "VMEM MB/image": moved.vmem / batch / 1e6,
        "peak MB": (memory.temp_size_in_bytes + memory.argument_size_in_bytes) / 1e6,
        "images/s at most": batch / max(arithmetic, transfers),
        "of peak %": 100 * arithmetic / max(arithmetic, transfers),
    }


def main() -> None:
    """Compiles, prints and keeps."""
    jax.config.update("jax_platforms", "cpu")
    configs = variants(CONFIG.value, SWEEP.value)
    operations, bandwidth, topology = CHIPS[CHIP.value]
    mesh = make_mesh(1, devices=[_chip(topology)])
    rows = [estimate(config, mesh, operations, bandwidth) for config in configs]
    print(f"estimates for one {CHIP.value} chip, from its compiler; nothing was run\n")
    report.show(rows)
    report.keep(rows, OUT.value)


def _chip(topology: str) -> jax.Device:
    """One chip of it."""
    # The compiler must neither look for a machine's TPU nor lock it.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    try:
        return topologies.get_topology_desc(topology, platform="tpu").devices[0]
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"the TPU's compiler cannot be used ({str(error).splitlines()[0]}); install it with "
            "pip install -e '.[tpu]'"
        ) from error


if __name__ == "__main__":
    cli.run(main, required=["config"])
