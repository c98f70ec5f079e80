"""What follows training: the priors that are fitted at once, and a sheet of new faces."""

from pathlib import Path

from vaejax.data import Dataset
from vaejax.records import pictures
from vaejax.records.progress import say
from vaejax.stages.fitting import fit, is_fitted
from vaejax.trained.loading import load


def finish(workdir: Path, dataset: Dataset) -> None:
    """Fits the other priors that the config names, draws samples, and says where everything is.

    Args:
      workdir: work directory of the run.
      dataset: that training has open; whatever lies beside its pictures by now is none of it.
    """
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
