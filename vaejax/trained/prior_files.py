"""The files of the priors that were fitted to the codes of a trained model."""

from pathlib import Path
from typing import Any, NamedTuple

from vaejax.config import FITTED_PRIORS
from vaejax.errors import UserError
from vaejax.priors.fitted import FittedPrior, load_prior, save_prior

# The name of the prior that was trained with the model; other names are priors fitted to its codes.
OWN_PRIOR = "model"


class Origin(NamedTuple):
    """The checkpoint whose codes a prior is fitted to.

    Attributes:
      workdir: work directory of the run, where the prior's file is.
      step: step of the checkpoint.
      digest: a number computed from the model's parameters.
      data_fingerprint: fingerprint of the data of the training.
    """

    workdir: Path
    step: int
    digest: int
    data_fingerprint: dict[str, Any]

    def path(self, name: str) -> Path:
        """The path of the file of the fitted prior with this name, whether or not it exists."""
        return self.workdir / "priors" / f"{name}.npz"


def save_fitted(origin: Origin, name: str, prior: FittedPrior, codes: int) -> None:
    """Saves a prior together with the checkpoint that it was fitted to.

    Args:
      origin: the checkpoint.
      name: one of `config.FITTED_PRIORS`.
      prior: the prior.
      codes: number of codes that it was fitted to.

    Raises:
      OSError: the file cannot be written.
    """
    meta = {
        "step": origin.step,
        "codes": codes,
        "model": origin.digest,
        "data": origin.data_fingerprint,
    }
    save_prior(origin.path(name), prior, meta)


def load_fitted(origin: Origin, name: str) -> FittedPrior:
    """Loads a prior that was fitted to the codes of a checkpoint.

    Args:
      origin: the checkpoint.
      name: one of `config.FITTED_PRIORS`.

    Raises:
      UserError: the name is unknown, or the prior was not fitted, was fitted to another checkpoint
        or other data, or its file is damaged.
    """
    if name not in FITTED_PRIORS:
        known = ", ".join((OWN_PRIOR, *FITTED_PRIORS))
        raise UserError(f"prior {name!r} is none of {known}; name one of them")
    path = origin.path(name)
    remedy = (
        f"run python -m vaejax.fit --workdir={origin.workdir} --prior={name} "
        f"--checkpoint={origin.step}"
    )
    if not path.exists():
        raise UserError(f"no prior {name!r} was fitted in {origin.workdir}; {remedy}")
    prior, meta = load_prior(path)
    if meta.get("step") != origin.step:
        raise UserError(
            f"the prior {name!r} was fitted to the codes of step {meta.get('step')}, but this is "
            f"step {origin.step}; {remedy}"
        )
    # The step alone would not distinguish two runs in the same work directory.
    if (meta.get("model"), meta.get("data")) != (origin.digest, origin.data_fingerprint):
        raise UserError(
            f"the prior {name!r} in {origin.workdir} was fitted to the codes of another model or "
            f"other data than this, or by version 0.1, which did not record it; {remedy}"
        )
    return prior
