"""Estimates the cost of training on any devices: `python -m vaejax.aot --config=…`.

The real training step of a stage, by default of the model, is compiled for them, and nothing is
run. They need not be present: for TPUs only their compiler is needed (`pip install -e '.[tpu]'`).
Without --topology the step is compiled for the local devices.
"""

from collections.abc import Sequence
from typing import Any

import jax
from absl import flags

from vaejax import cli
from vaejax.config import Config
from vaejax.config.settings import changed, resolve
from vaejax.cost.compiled_step import Estimate, estimate
from vaejax.cost.largest_batch import largest_step, remedies
from vaejax.cost.steps import BATCH_SIZE, FINISH, FLOW, MODEL, batch_size, check_stage
from vaejax.errors import DoesNotFit, UserError
from vaejax.files.atomic import check_writable, replacing
from vaejax.files.paths import local_path
from vaejax.files.strict_json import dumps
from vaejax.records.progress import say
from vaejax.records.tables import Row, cell, markdown
from vaejax.runtime.chips import chip_of, topology_devices

CONFIG = cli.define_config()
STAGE = flags.DEFINE_enum(
    "stage", MODEL, [MODEL, FLOW, FINISH], "The stage of the run whose step is compiled."
)
PICTURES = flags.DEFINE_integer(
    "pictures",
    None,
    "Number of training pictures, whose codes each chip holds; only for --stage=flow.",
    lower_bound=1,
)
TOPOLOGY = flags.DEFINE_string(
    "topology", None, "TPU chips such as v5e:16x16, v5p:2x2x2, or v5e:16x16*4 for four slices."
)
COMPARE = flags.DEFINE_list("compare", None, "Several topologies, for one table.")
BATCH = flags.DEFINE_integer(
    "batch_per_chip", None, "Instead of the stage's batch size over all chips.", lower_bound=1
)
FIND_BATCH = flags.DEFINE_bool("find_batch", False, "Find the largest batch per chip that fits.")
OUT = flags.DEFINE_string("out", None, "A JSON file to keep the figures in.")


def main() -> None:
    """Compiles the step for each topology, prints the estimates, and writes them to `--out`."""
    if TOPOLOGY.value and COMPARE.value:
        raise UserError("--topology and --compare do not go together; name all in --compare")
    if COMPARE.present and not COMPARE.value:
        raise UserError("--compare= is empty; name topologies, or leave it out")
    if PICTURES.value and STAGE.value != FLOW:
        raise UserError(
            f"--pictures={PICTURES.value} is of --stage={FLOW}, which holds their codes on each "
            "chip; leave it out"
        )
    config = resolve(CONFIG.value)
    check_stage(config, STAGE.value)
    out = OUT.value and local_path("--out", OUT.value)
    if out:
        check_writable(out, "--out")
    # JAX would cache a program for devices that are not present, but could not read it again.
    jax.config.update("jax_enable_compilation_cache", False)
    names: Sequence[str | None] = COMPARE.value or [TOPOLOGY.value]
    if names != [None]:
        jax.config.update("jax_platforms", "cpu")  # leaves local accelerators alone
    places = [(name or "here", topology_devices(name) if name else jax.devices()) for name in names]
    rows = [_row(config, name, devices, alone=len(places) == 1) for name, devices in places]
    if STAGE.value == FLOW and not PICTURES.value:
        say("the codes of one batch are counted; with --pictures=N those of N training pictures")
    print("estimates by the compiler, and upper bounds by the chips' peak rates; nothing was run\n")
    if COMPARE.value:
        print(markdown(rows))
    else:
        width = max(map(len, rows[0]))
        print("\n".join(f"{name:>{width}}  {cell(value)}" for name, value in rows[0].items()))
    if out:
        with replacing(out) as temporary:
            temporary.write_text(dumps(rows, indent=2) + "\n")


def _row(config: Config, name: str, devices: list[jax.Device], alone: bool) -> Row:
    """Returns the figures of one topology, a row of the table.

    Args:
      config: config of the run.
      name: name of the topology.
      devices: its devices.
      alone: whether it is the only topology; with others, a step that does not fit is a row too.

    Raises:
      UserError: the step does not fit and `alone` is true, or the memory that `--find_batch` is to
        fill is unknown.
    """
    count, stage = len(devices), STAGE.value
    known = {"topology": name, "stage": stage}

    def trial(config: Config) -> Estimate:
        per_chip = batch_size(config, stage) // count
        say(f"{name}: compiling for {count} x {devices[0].device_kind}, {per_chip} pictures each")
        return estimate(config, devices, stage, PICTURES.value or 0)

    config = changed(config, {BATCH_SIZE[stage]: _batch(config, name, count)})
    if FIND_BATCH.value:
        if (chip := chip_of(devices[0])) is None:
            raise UserError(
                f"--find_batch: the memory of {devices[0].device_kind} is not known; name a "
                "--topology"
            )
        if found := largest_step(config, chip, count, trial, stage):
            return {**known, **found.figures()}
        words = "not even the smallest batch fits; choose a smaller model"
        if alone:
            raise UserError(f"{name}: {words}")
        return {**known, "chips": count, "bound by": words}
    try:
        return {**known, **trial(config).figures()}
    except DoesNotFit as error:
        if not alone:
            return {**known, "chips": count, "bound by": str(error)}
        fitting = remedies(config, count, error, trial, stage)
        ways = [_flags(changes, count) for changes in fitting]
        advice = (
            f"each of these would fit: {'; '.join(ways)}" if ways else "nothing tried would fit"
        )
        raise UserError(f"{name}: {error}; {advice}") from error


def _flags(changes: dict[str, Any], count: int) -> str:
    """Returns changes of settings as flags of this command."""
    if BATCH.value and (batch := changes.get(BATCH_SIZE[STAGE.value])):
        return f"--batch_per_chip={batch // count}"
    return " ".join(f"--config.{name}={value}" for name, value in changes.items())


def _batch(config: Config, name: str, count: int) -> int:
    """Returns the stage's batch size over all chips, from `--batch_per_chip` or the config."""
    batch = batch_size(config, STAGE.value)
    if BATCH.value:
        return BATCH.value * count
    if batch % count:
        say(
            f"{name}: config.{BATCH_SIZE[STAGE.value]}={batch} does not divide among {count} chips;"
            f" taken for each chip instead (as --batch_per_chip={batch}): {batch * count} in all"
        )
        return batch * count
    return batch


if __name__ == "__main__":
    cli.run(main, required=["config"])
