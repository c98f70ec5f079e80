"""Which stages a run has."""

from pathlib import Path

from vaejax.config import Config
from vaejax.data import Dataset
from vaejax.runtime.processes import Group
from vaejax.stages.fitting import is_fitted
from vaejax.stages.flow_prior import NAME, flow_prior_stage
from vaejax.stages.sequence import PlannedStage, Stage
from vaejax.tasks import build_task
from vaejax.trained.loading import load


def planned_stages(config: Config, workdir: Path, group: Group) -> list[PlannedStage]:
    """What a config trains, in turn: the model, and on its codes the flow prior.

    Args:
      config: config of the run.
      workdir: where it is kept.
      group: the processes that train together.
    """

    def model(_: Dataset | None) -> Stage:
        return Stage(config, workdir, build_task(config))

    def flow_prior(dataset: Dataset | None) -> Stage | None:
        trained = load(workdir)
        # Process 0 looks for all.
        missing = group.index == 0 and not is_fitted(trained, NAME)
        if dataset is None or not group.agree("missing" if missing else ""):
            return None
        return flow_prior_stage(trained, dataset, group)

    return [model, flow_prior] if NAME in config.prior.fitted else [model]
