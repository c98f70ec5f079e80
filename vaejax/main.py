"""Trains a VAE: `python -m vaejax.main --config=configs/celeba.py`."""

from typing import TYPE_CHECKING

from absl import flags
from ml_collections import config_flags

from vaejax import cli
from vaejax.cli.command_line import config_name
from vaejax.config.settings import resolve
from vaejax.errors import TRY_AGAIN, UserError
from vaejax.files.paths import local_path
from vaejax.runtime.rendezvous import Rendezvous

if TYPE_CHECKING:
    from vaejax.runtime.processes import Group

CONFIG = cli.define_config()
WORKDIR = flags.DEFINE_string(
    "workdir", None, "Where the run is kept. Default: runs/ and the config file's name."
)
COORDINATOR = flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0, of several.")
PROCESSES = flags.DEFINE_integer(
    "processes", None, "Number of processes that train together.", lower_bound=1
)
PROCESS = flags.DEFINE_integer("process", None, "Index of this process, from 0.", lower_bound=0)
DISTRIBUTED = flags.DEFINE_bool(
    "distributed",
    False,
    "Find the others through Cloud TPU, SLURM or Kubernetes. They meet at the ports that the "
    "environment names as JAX_COORDINATOR_PORT (or 8476) and VAEJAX_PORT (or the next one).",
)
START_TIMEOUT = flags.DEFINE_float(
    "start_timeout", 300.0, "Seconds to wait for all processes.", lower_bound=1
)


def main() -> int:
    """Trains or resumes the run, then fits its priors and draws samples.

    Returns:
      The exit status, which is `TRY_AGAIN` if the run was asked to stop and else 0.
    """
    config = resolve(CONFIG.value)
    name = config_name(config_flags.get_config_filename(flags.FLAGS["config"]))
    workdir = local_path("--workdir", WORKDIR.value or f"runs/{name}")
    # Imported only now, so that a mistake in the settings is reported without delay.
    from vaejax.records import progress
    from vaejax.records.workdir import claim
    from vaejax.runtime.mesh import check_devices
    from vaejax.stages.concluding import conclude
    from vaejax.stages.plan import planned_stages
    from vaejax.stages.sequence import train_in_turn
    from vaejax.training.loop import Outcome

    group = _join()
    check_devices()
    if group.index:
        progress.silence()
    # Claimed here as well, so that no other run can start there during `conclude`.
    with group.watching(), claim(workdir, config, group):
        outcome, dataset = train_in_turn(planned_stages(config, workdir, group), group)
        group.leave()
        if outcome is Outcome.INTERRUPTED:
            return TRY_AGAIN
        if group.index == 0:
            conclude(workdir, dataset)
    return 0


def _join() -> "Group":
    """Joins the processes that the flags name; returns this one alone if they name none.

    Raises:
      UserError: the flags contradict each other, or only some of the three are given; or as
        `processes.start` raises it.
    """
    from vaejax.runtime import processes

    coordinator, count, index = COORDINATOR.value, PROCESSES.value, PROCESS.value
    if DISTRIBUTED.value:
        if (coordinator, count, index) != (None, None, None):
            raise UserError(
                "--distributed finds the other processes by itself; leave out --coordinator, "
                "--processes and --process, or --distributed"
            )
        return processes.start_detected(START_TIMEOUT.value)
    if coordinator is None and count is None and index is None:
        return processes.ALONE
    if coordinator is None or count is None or index is None:
        raise UserError("--coordinator, --processes and --process go together; name all three")
    return processes.start(Rendezvous(coordinator, count, index, START_TIMEOUT.value))


if __name__ == "__main__":
    cli.run(main, required=["config"])
