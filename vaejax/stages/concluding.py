"""The steps after training: fitting priors or a ladder's temperatures, and drawing new faces."""

from pathlib import Path

from vaejax.config.saved import load_json
from vaejax.data import Dataset
from vaejax.records import pictures
from vaejax.records.progress import say
from vaejax.stages.fitting import fit, is_fitted
from vaejax.trained.loading import load


def conclude(workdir: Path, dataset: Dataset) -> None:
    """Fits what is missing of `config.prior.fitted`, draws samples, and prints where they are.

    For a network of attributes, which is no VAE, it only prints what to do with it.

    Args:
      workdir: work directory of the run.
      dataset: the data set that training has opened. It is not opened again, because pictures may
        have been added to its directory since.

    Raises:
      UserError: there is no checkpoint, or the pictures are too few for what is fitted.
      OSError: a file cannot be written.
    """
    if not load_json(workdir / "config.json").is_vae:
        say(f"pictures of the training: {workdir / 'pictures'}")
        say(f"measure a VAE: python -m vaejax.evaluate --workdir=DIR --attributes={workdir}")
        return
    trained = load(workdir)
    missing = [name for name in trained.config.prior.fitted if not is_fitted(trained, name)]
    if missing:
        fit(trained, missing, dataset)
    columns = trained.config.eval.grid
    sheet = pictures.grid(trained.sample(columns**2), columns)
    pictures.save(workdir / "samples.png", sheet)
    say(f"new faces: {workdir / 'samples.png'}")
    say(f"pictures of the training: {workdir / 'pictures'}")
    say(f"more faces: python -m vaejax.sample --workdir={workdir}")
