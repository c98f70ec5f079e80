"""Fits priors to the codes of a trained model, and temperatures to a ladder."""

import time
from collections.abc import Sequence

import jax
import numpy as np

from vaejax.config import FITTED_PRIORS
from vaejax.config.priors import TEMPERATURES, check_fitted
from vaejax.data import Dataset
from vaejax.errors import UserError
from vaejax.files.atomic import check_writable
from vaejax.priors import FlowMatching
from vaejax.priors.fitted import fit_prior
from vaejax.records.progress import say
from vaejax.stages.flow_prior import NAME, flow_prior_stage
from vaejax.stages.sequence import train_in_turn
from vaejax.stages.temperatures import fit_temperatures
from vaejax.trained.model import TrainedModel
from vaejax.trained.prior_files import save_fitted
from vaejax.trained.temperature_files import temperatures_path
from vaejax.training.loop import Outcome


def check_priors(trained: TrainedModel, names: Sequence[str]) -> None:
    """Checks that priors can be fitted to the codes of `trained` and saved.

    Raises:
      UserError: there is no name or an unknown one, it is not for such latents (to a ladder,
        temperatures are fitted and no priors), or its file cannot be written.
    """
    unknown = [name for name in names if name not in (*FITTED_PRIORS, TEMPERATURES)]
    if unknown or not names:
        raise UserError(
            f"--prior={','.join(names)} names no prior that can be fitted; choose from "
            f"{', '.join(FITTED_PRIORS)}, and for a ladder {TEMPERATURES}"
        )
    if trained.config.model.has_groups:
        if set(names) != {TEMPERATURES}:
            raise UserError(
                "no prior is fitted to a ladder, whose groups' priors are trained with it; fit the "
                f"temperatures of its samples with --prior={TEMPERATURES}"
            )
        paths = {temperatures_path(trained.origin): "the temperatures"}
    else:
        if TEMPERATURES in names:
            raise UserError(
                f"--prior={TEMPERATURES} is for a ladder, one for each resolution; choose from "
                f"{', '.join(FITTED_PRIORS)}"
            )
        check_fitted(names, trained.config.latent_shape)
        paths = {trained.origin.path(name): "the prior" for name in names}
    for path, what in paths.items():
        check_writable(path, what, "make the run's directory writable, or copy it")


def fit(trained: TrainedModel, names: Sequence[str], dataset: Dataset, *, seed: int = 0) -> Outcome:
    """Fits priors to one code z ~ q(z|x) of each training picture and saves them.

    Of a ladder, the temperatures of samples are fitted. The flow is trained; if its training was
    stopped by a signal, the same call resumes it.

    Args:
      trained: the model.
      names: names of the priors, or `temperatures`, which `check_priors` has accepted.
      dataset: the data set that `trained` was trained on.
      seed: seed of the codes and of the fit.

    Returns:
      Whether the flow's training was finished or interrupted; FINISHED without a flow.

    Raises:
      UserError: the codes are too few or not finite, or the pictures too few for temperatures.
      TrainingError: the training of the flow diverged again after its last rollback.
      OSError: a prior cannot be written.
    """
    if TEMPERATURES in names:
        fit_temperatures(trained, dataset, seed=seed)
    others = [name for name in names if name not in (NAME, TEMPERATURES)]
    if others:
        _fit_at_once(trained, others, dataset, seed)
    if NAME in names:
        stage = flow_prior_stage(trained, dataset, seed=seed)
        return train_in_turn([lambda _: stage], dataset=dataset)[0]
    return Outcome.FINISHED


def _fit_at_once(trained: TrainedModel, names: Sequence[str], dataset: Dataset, seed: int) -> None:
    # The codes are one array, because no prior is fitted to a ladder.
    codes = np.asarray(trained.sample_posterior(dataset.splits["train"].images, seed=seed))
    for name in names:
        started = time.monotonic()
        prior = fit_prior(name, codes, jax.random.key(seed), progress=say)
        save_fitted(trained.origin, name, prior, len(codes))
        say(f"prior {name} fitted to {len(codes)} codes in {time.monotonic() - started:.1f} s")


def is_fitted(trained: TrainedModel, name: str) -> bool:
    """Whether a usable prior of this name, or temperatures, were fitted to this checkpoint.

    A flow that has learned other labels than `config.flow.labels` is not usable.
    """
    if name == TEMPERATURES:
        return trained.temperature is not None
    try:
        prior = trained.fitted_prior(name)
    except UserError:
        return False
    if not isinstance(prior, FlowMatching):
        return True
    return tuple(label.name for label in prior.labels) == trained.config.flow.labels
