"""Estimates the cost of one training step from its compiled program, without running it.

The time of a step is bounded from below by FLOPs / peak FLOP/s, bytes of main memory / its
bandwidth, and bytes of collectives / the links' bandwidth (the roofline model, Williams, Waterman
and Patterson 2009); rates here are estimates. The peak memory is XLA's `memory_analysis()`, and
the collectives are those of the compiled HLO.
"""

import re
import time
from collections import Counter
from typing import NamedTuple

import jax

from vaejax.config import Config
from vaejax.cost.flops import matmul_flops
from vaejax.cost.hlo import Collective, Program
from vaejax.cost.steps import MODEL, step_of
from vaejax.cost.traffic import Traffic, traffic
from vaejax.errors import DoesNotFit
from vaejax.records.tables import Row
from vaejax.runtime.chips import Chip, chip_of
from vaejax.runtime.mesh import make_mesh
from vaejax.runtime.shards import fitting_fsdp
from vaejax.training.state import shapes

# Sizes in the compiler's message, needed first and available second: "Used 20.31G of 15.75G hbm".
_SIZE = re.compile(r"\b([\d.]+)([KMGT])\b")
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


class Estimate(NamedTuple):
    """The estimated cost of one call of the training step on the devices of a mesh.

    Attributes:
      chip: the kind of the devices; None if `CHIPS` does not list it.
      devices: number of devices.
      fsdp: number of devices that share one copy of the state.
      pictures: training pictures in one call, over all devices.
      updates: parameter updates in one call.
      parameters: number of learned parameters.
      flops: floating-point operations of the matrix products and convolutions of one call, over
        all devices.
      memory: bytes that one device needs at the peak, including the program itself.
      traffic: bytes that one device reads and writes in one call.
      collectives: what the devices exchange in one call; those of a branch count whichever side is
        taken.
      host_transfers: names of instructions that exchange data with the host.
      doubles: whether the program contains 64-bit floating-point numbers.
      compile_seconds: seconds that the compilation took on this machine.
    """

    chip: Chip | None
    devices: int
    fsdp: int
    pictures: int
    updates: int
    parameters: int
    flops: int
    memory: int
    traffic: Traffic
    collectives: list[Collective]
    host_transfers: list[str]
    doubles: bool
    compile_seconds: float

    def bounds(self) -> dict[str, float]:
        """Returns the least seconds that each resource needs for one call; empty without a `chip`.

        The resources are `arithmetic`, `memory` (HBM), `links` within a slice or machine, and
        `network` between slices.
        """
        if self.chip is None:
            return {}
        within = sum(one.sent for one in self.collectives if one.kind != "send")
        between = sum(one.sent for one in self.collectives if one.kind == "send")
        return {
            "arithmetic": self.flops / self.devices / self.chip.flops,
            "memory": self.traffic.hbm / self.chip.bandwidth,
            "links": within / self.chip.links,
            "network": between / self.chip.network,
        }

    def seconds(self) -> float | None:
        """Returns a lower bound on the seconds of one call; None without a `chip`.

        Communication is assumed to wait for all other work, as the compiler schedules it for
        steps as short as these, so its time is added.
        """
        bounds = self.bounds()
        if not bounds:
            return None
        return max(bounds["arithmetic"], bounds["memory"]) + bounds["links"] + bounds["network"]

    def figures(self) -> Row:
        """Returns one row of a table: the counts and, for a known chip, upper bounds of rates."""
        bounds, seconds = self.bounds(), self.seconds()
        exchanged = Counter(one.kind for one in self.collectives)
        size = sum(one.result for one in self.collectives)
        return {
            "chip": self.chip.name if self.chip else None,
            "chips": self.devices,
            "fsdp": self.fsdp,
            "batch/chip": self.pictures // self.updates // self.devices,
            "parameters": f"{self.parameters:,}",
            "MFLOP/image": self.flops / self.pictures / 1e6,
            "peak GiB/chip": self.memory / 2**30,
            "of memory %": 100 * self.memory / self.chip.memory if self.chip else None,
            "HBM MB/image": self.traffic.hbm * self.devices / self.pictures / 1e6,
            "near MB/image": self.traffic.near * self.devices / self.pictures / 1e6,
            "exchanged": ", ".join(f"{n} {kind}" for kind, n in exchanged.items()) or "nothing",
            "exchanged MB": size / 1e6,
            "ms at least": seconds and 1e3 * seconds / self.updates,
            "bound by": max(bounds, key=bounds.__getitem__, default=None),
            "images/s at most": seconds and self.pictures / seconds,
            "of peak %": seconds and 100 * bounds["arithmetic"] / seconds,
            "compile s": self.compile_seconds,
        }


def estimate(
    config: Config, devices: list[jax.Device], stage: str = MODEL, pictures: int = 0
) -> Estimate:
    """Compiles the training step of a stage for `devices` and estimates its cost.

    Args:
      config: config of the run.
      devices: devices to compile for; they need not be attached (`topology_devices`).
      stage: `model`, `flow` or `finish`.
      pictures: number of training pictures, whose codes every device holds for the flow prior.

    Raises:
      DoesNotFit: the step needs more memory than a device has.
      UserError: the batch does not divide among the devices, or the model has no such stage.
      ValueError: the compiled program has a loop of unknown length.
    """
    step, device = step_of(config, stage, len(devices), pictures), devices[0]
    chip, carry = chip_of(device), shapes(step.task)
    # The state is sharded as training would shard it.
    neighbours = sum(other.process_index == device.process_index for other in devices)
    train = step.config.train
    fsdp = train.fsdp or fitting_fsdp(carry, chip and chip.memory, neighbours)
    mesh = make_mesh(train.batch_size, fsdp, devices, accumulate=train.accumulate)
    traced = step.trace(mesh)
    lowered = traced.lower(lowering_platforms=(device.platform,))
    start = time.perf_counter()
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        sizes = [int(float(size) * _UNITS[unit]) for size, unit in _SIZE.findall(str(error))]
        if "RESOURCE_EXHAUSTED" not in str(error) or len(sizes) < 2:
            raise
        needed, had = sizes[:2]
        raise DoesNotFit(needed, had) from error
    seconds = time.perf_counter() - start
    sizes = compiled.memory_analysis()
    memory = (
        sizes.argument_size_in_bytes
        + sizes.output_size_in_bytes
        - sizes.alias_size_in_bytes
        + sizes.temp_size_in_bytes
        + sizes.generated_code_size_in_bytes
    )
    if chip and memory > chip.memory:  # compilers for GPUs do not check
        raise DoesNotFit(memory, chip.memory)
    program = Program(compiled.as_text())
    return Estimate(
        chip=chip,
        devices=mesh.size,
        fsdp=fsdp,
        pictures=train.batch_size * train.steps_per_dispatch,
        updates=train.steps_per_dispatch,
        parameters=carry.state.parameters(),
        flops=matmul_flops(traced.jaxpr, step.costlier),
        memory=memory,
        traffic=traffic(program, step.costlier),
        collectives=program.collectives(),
        host_transfers=program.host_transfers(),
        doubles=program.has_doubles(),
        compile_seconds=seconds,
    )
