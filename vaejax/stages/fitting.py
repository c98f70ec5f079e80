"""Fits priors to the codes of a trained model."""

import time
from collections.abc import Sequence

import jax
import numpy as np

from vaejax.config import FITTED_PRIORS
from vaejax.data import Dataset
from vaejax.errors import UserError
from vaejax.files.atomic import check_writable
from vaejax.priors.fitted import fit_prior, save_prior
from vaejax.records.progress import say
from vaejax.stages.flow_prior import NAME, flow_prior_stage
from vaejax.stages.sequence import train_in_turn
from vaejax.trained.model import TrainedModel
from vaejax.training.loop import Outcome


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
      names: names of the priors, which `check_priors` has accepted.
      dataset: that it was trained on.
      seed: seed of the codes and the fit.

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


def is_fitted(trained: TrainedModel, name: str) -> bool:
    """Whether a prior of this name was fitted to this checkpoint's codes."""
    try:
        trained.fitted_prior(name)
    except UserError:
        return False
    return True
