"""Determines the stages of a run from its config."""

from pathlib import Path

from vaejax.config import Config
from vaejax.data import Dataset
from vaejax.runtime.processes import Group
from vaejax.stages.decoder_finish import finish_stage
from vaejax.stages.fitting import is_fitted
from vaejax.stages.flow_prior import NAME, flow_prior_stage
from vaejax.stages.sequence import PlannedStage, Stage
from vaejax.tasks import build_task
from vaejax.trained.decoder_files import MODEL
from vaejax.trained.loading import load


def planned_stages(config: Config, workdir: Path, group: Group) -> list[PlannedStage]:
    """Returns the stages of a run: the model; of a VAE also a flow prior and the decoder's finish.

    The flow prior's stage is skipped if the prior of the best checkpoint already exists.

    Args:
      config: config of the run; `prior.fitted` and `finish` decide which stages there are.
      workdir: work directory of the run.
      group: the processes that train together.
    """

    def model(_: Dataset | None) -> Stage:
        return Stage(config, workdir, build_task(config))

    def flow_prior(dataset: Dataset | None) -> Stage | None:
        trained = load(workdir)
        # Process 0 decides for all processes.
        missing = group.index == 0 and not is_fitted(trained, NAME)
        if dataset is None or not group.agree("missing" if missing else ""):
            return None
        return flow_prior_stage(trained, dataset, group)

    def finish(dataset: Dataset | None) -> Stage | None:
        if dataset is None:
            return None
        return finish_stage(load(workdir, decoder=MODEL), dataset, group)

    if not config.is_vae:
        return [model]
    has_finish = config.finish.steps > 0
    has_flow = NAME in config.prior.fitted or (has_finish and config.finish.prior == NAME)
    return [model, *[flow_prior] * has_flow, *[finish] * has_finish]
