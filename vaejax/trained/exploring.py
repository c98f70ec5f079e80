"""What each resolution of a ladder decides, as pictures."""

from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8

from vaejax.data.feed.subsets import random_rows
from vaejax.errors import UserError
from vaejax.files.atomic import check_writable
from vaejax.records import pictures
from vaejax.records.progress import say
from vaejax.trained.loading import open_data
from vaejax.trained.model import TrainedModel

TEMPERATURES = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
# Other choices of a resolution's latents that are shown beside a face.
CHOICES = 2

Faces = UInt8[np.ndarray, "face height width channel"]
Sheet = UInt8[np.ndarray, "picture height width channel"]


def explore(
    trained: TrainedModel,
    directory: Path,
    *,
    faces: int,
    seed: int,
    data_path: str | None = None,
    cache_dir: str | None = None,
) -> None:
    """Draws `progressive.png`, `resampled.png` and `temperatures.png`, and says what they show.

    Args:
      trained: a ladder.
      directory: where they are written.
      faces: how many faces of the validation split, else of the training split; there are as
        many columns of samples.
      seed: seed of what is drawn at random.
      data_path: where the data lies, if not where the config says.
      cache_dir: where decoded pictures are kept, if not where the config says.

    Raises:
      UserError: the model is no ladder, or the data is missing or other data.
    """
    if not trained.config.model.has_groups:
        raise UserError(
            f"{trained.workdir} holds a model with one flat z; only a run with "
            "config.model.name=ladder has resolutions to look at"
        )
    check_writable(directory / "progressive.png", "--out")
    known = open_data(trained, data_path, cache_dir).shown()
    originals = np.asarray(known[random_rows(len(known), faces)])
    names = list(dict.fromkeys(trained.model.resolutions()))
    shown = " | ".join(names)
    sheets = {
        "progressive": (
            progressive(trained, originals),
            f"each row: a face, and what is left of it when it is known down to {shown} and all "
            "below is the prior's guess",
        ),
        "resampled": (
            resampled(trained, originals, seed),
            f"each row: a face rebuilt, and with other latents, {CHOICES} times each, at {shown}",
        ),
        "temperatures": (
            temperatures(trained, faces, seed),
            f"each row: new faces at temperature {' | '.join(map(str, TEMPERATURES))}, from above",
        ),
    }
    columns = {"progressive": 1 + len(names), "resampled": 1 + CHOICES * len(names)}
    for name, (sheet, words) in sheets.items():
        path = directory / f"{name}.png"
        pictures.save(path, pictures.grid(sheet, columns.get(name, faces)))
        say(f"{path}: {words}")


def progressive(trained: TrainedModel, originals: Faces) -> Sheet:
    """Rows of a face and of its reconstructions from ever more resolutions, from the top down.

    What is not yet known is the mean of its prior given all above: the model's best guess.
    """
    z, _ = trained.encode(originals)
    columns = [originals]
    for kept in np.logical_or.accumulate(_levels(trained)):
        columns.append(trained.redraw(z, keep=kept, temperature=0.0)[0])
    return _rows(columns)


def resampled(trained: TrainedModel, originals: Faces, seed: int) -> Sheet:
    """Rows of a face's reconstruction, and the same with one resolution's latents drawn anew.

    The latents of all other resolutions stay, so that what changes is what that one decides.
    """
    z = trained.sample_posterior(originals, seed=seed)
    columns = [trained.decode(z)]
    for changed in _levels(trained):
        for choice in range(CHOICES):
            columns.append(trained.redraw(z, keep=~changed, seed=seed + choice)[0])
    return _rows(columns)


def temperatures(trained: TrainedModel, count: int, seed: int) -> Sheet:
    """Rows of new faces, from the coldest to the hottest; each column has the same noise."""
    return np.concatenate(
        [trained.sample(count, seed=seed, temperature=value) for value in TEMPERATURES]
    )


def _levels(trained: TrainedModel) -> Bool[np.ndarray, "level group"]:
    """For each resolution, from the top, which groups are of it."""
    resolutions = np.array(trained.model.resolutions())
    return np.array([resolutions == each for each in dict.fromkeys(resolutions)])


def _rows(columns: list[Faces]) -> Sheet:
    """One row for each face, of its picture from each column."""
    return np.stack(columns, axis=1).reshape(-1, *columns[0].shape[1:])
