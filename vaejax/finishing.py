"""What follows training: priors fitted to the codes, and a sheet of new faces."""

import time
from collections.abc import Sequence
from pathlib import Path

import jax

from vaejax import pictures
from vaejax.config import FITTED_PRIORS
from vaejax.errors import UserError
from vaejax.loading import load, open_data
from vaejax.priors.fitted import fit_prior, save_prior
from vaejax.progress import say
from vaejax.trained import TrainedModel


def finish(workdir: Path) -> None:
    """Fits the priors that the config names, draws samples, and says where everything is."""
    trained = load(workdir)
    missing = [name for name in trained.config.prior.fitted if not _is_fitted(trained, name)]
    if missing:
        fit(trained, missing)
    columns = trained.config.eval.grid
    sheet = pictures.grid(trained.sample(columns**2), columns)
    pictures.save(workdir / "samples.png", sheet)
    say(f"new faces: {workdir / 'samples.png'}")
    say(f"pictures of the training: {workdir / 'pictures'}")
    say(f"more faces: python -m vaejax.sample --workdir={workdir}")


def fit(
    trained: TrainedModel, names: Sequence[str], *, seed: int = 0, data_path: str | None = None
) -> None:
    """Fits priors to one code z ~ q(z|x) of each training picture and saves them.

    Args:
      trained: the model.
      names: of the priors.
      seed: of the codes and the fit.
      data_path: where the data lies, if not where the config says.

    Raises:
      UserError: the data is missing, or a name is unknown.
    """
    unknown = [name for name in names if name not in FITTED_PRIORS]
    if unknown or not names:
        raise UserError(
            f"no prior {', '.join(unknown) or 'at all'!r} can be fitted; choose from "
            f"{', '.join(FITTED_PRIORS)}"
        )
    if trained.config.model.name == "ladder":
        raise UserError("no prior is fitted to a ladder, whose groups' priors are trained with it")
    images = open_data(trained, data_path).splits["train"].images
    codes = trained.sample_posterior(images, seed=seed)
    for name in names:
        started = time.monotonic()
        prior = fit_prior(name, codes, jax.random.key(seed), progress=say)
        save_prior(trained.prior_path(name), prior, {"step": trained.step, "codes": len(codes)})
        say(f"prior {name} fitted to {len(codes)} codes in {time.monotonic() - started:.1f} s")


def _is_fitted(trained: TrainedModel, name: str) -> bool:
    try:
        trained.fitted_prior(name)
    except UserError:
        return False
    return True
