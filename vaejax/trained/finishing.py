"""What follows training: fits priors to the codes and draws a sheet of new faces."""

import time
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from vaejax.config import FITTED_PRIORS, Config
from vaejax.data import Dataset
from vaejax.errors import UserError
from vaejax.files.atomic import check_writable
from vaejax.priors.fitted import fit_prior, save_prior
from vaejax.records import pictures
from vaejax.records.progress import say
from vaejax.runtime.processes import Group
from vaejax.tasks import build_task
from vaejax.trained.loading import load
from vaejax.trained.model import TrainedModel
from vaejax.trained.prior_stage import NAME, flow_prior_stage
from vaejax.training.loop import Outcome
from vaejax.training.stages import PlannedStage, Stage, train_in_turn


def planned_stages(config: Config, workdir: Path, group: Group) -> list[PlannedStage]:
    """What a config trains, in turn: the model, and on its codes the flow prior.

    Args:
      config: of the run.
      workdir: where it is kept.
      group: the processes that train together.
    """

    def model(_: Dataset | None) -> Stage:
        return Stage(config, workdir, build_task(config))

    def flow_prior(dataset: Dataset | None) -> Stage | None:
        trained = load(workdir)
        # Process 0 looks for all.
        missing = group.index == 0 and not _is_fitted(trained, NAME)
        if dataset is None or not group.agree("missing" if missing else ""):
            return None
        return flow_prior_stage(trained, dataset, group)

    return [model, flow_prior] if NAME in config.prior.fitted else [model]


def finish(workdir: Path, dataset: Dataset) -> None:
    """Fits the other priors that the config names, draws samples, and says where everything is.

    Args:
      workdir: of the run.
      dataset: that training has open; whatever lies beside its pictures by now is none of it.
    """
    trained = load(workdir)
    missing = [name for name in trained.config.prior.fitted if not _is_fitted(trained, name)]
    if missing:
        fit(trained, missing, dataset)
    columns = trained.config.eval.grid
    sheet = pictures.grid(trained.sample(columns**2), columns)
    pictures.save(workdir / "samples.png", sheet)
    say(f"new faces: {workdir / 'samples.png'}")
    say(f"pictures of the training: {workdir / 'pictures'}")
    say(f"more faces: python -m vaejax.sample --workdir={workdir}")


def check_priors(trained: TrainedModel, names: Sequence[str]) -> None:
    """Raises UserError if a prior of these names cannot be fitted to the model, or not be kept."""
    unknown = [name for name in names if name not in FITTED_PRIORS]
    if unknown or not names:
        raise UserError(
            f"--prior={','.join(names)} names no prior that can be fitted; choose from "
            f"{', '.join(FITTED_PRIORS)}"
        )
    if trained.config.model.has_groups:
        raise UserError("no prior is fitted to a ladder, whose groups' priors are trained with it")
    for name in names:
        check_writable(
            trained.prior_path(name), "the prior", "make the run's directory writable, or copy it"
        )


def fit(trained: TrainedModel, names: Sequence[str], dataset: Dataset, *, seed: int = 0) -> Outcome:
    """Fits priors to one code z ~ q(z|x) of each training picture and saves them.

    The flow is trained, and goes on where it was stopped.

    Args:
      trained: the model.
      names: of the priors, which `check_priors` has accepted.
      dataset: that it was trained on.
      seed: of the codes and the fit.

    Raises:
      UserError: the codes are too few.
      OSError: a prior cannot be written.
    """
    others = [name for name in names if name != NAME]
    if others:
        _fit_at_once(trained, others, dataset, seed)
    if NAME in names:
        stage = flow_prior_stage(trained, dataset, seed=seed)
        return train_in_turn([lambda _: stage], dataset=dataset)[0]
    return Outcome.FINISHED


def _fit_at_once(trained: TrainedModel, names: Sequence[str], dataset: Dataset, seed: int) -> None:
    # One array: no prior is fitted to a ladder, which has one for each resolution.
    codes = np.asarray(trained.sample_posterior(dataset.splits["train"].images, seed=seed))
    for name in names:
        started = time.monotonic()
        prior = fit_prior(name, codes, jax.random.key(seed), progress=say)
        meta = {
            "step": trained.step,
            "codes": len(codes),
            "model": trained.digest,
            "data": trained.data_fingerprint,
        }
        save_prior(trained.prior_path(name), prior, meta)
        say(f"prior {name} fitted to {len(codes)} codes in {time.monotonic() - started:.1f} s")


def _is_fitted(trained: TrainedModel, name: str) -> bool:
    try:
        trained.fitted_prior(name)
    except UserError:
        return False
    return True
