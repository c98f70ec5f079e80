"""Draws what the latents of each resolution of a ladder determine."""

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
# How often each resolution's latents are resampled for a face.
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
    """Writes `progressive.png`, `resampled.png` and `temperatures.png`, and prints what they show.

    Args:
      trained: a trained ladder.
      directory: the directory of the files.
      faces: number of faces of the validation split (else of the training split) and of columns of
        samples.
      seed: seed of all random latents.
      data_path: path of the data; None means `config.data.path`.
      cache_dir: directory of the cache of decoded pictures; None means `config.data.cache_dir`.

    Raises:
      UserError: the model is not a ladder, the files cannot be written, or the data is missing or
        not the data of the training.
    """
    if not trained.config.model.has_groups:
        raise UserError(
            f"{trained.workdir} holds a model whose latents are one array; only a run with "
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
            f"each row: a face, and its reconstruction from the latents down to {shown}, with the "
            "prior's mean below",
        ),
        "resampled": (
            resampled(trained, originals, seed),
            f"each row: a face rebuilt, and with other latents, {CHOICES} times each, at {shown}",
        ),
        "temperatures": (
            temperatures(trained, faces, seed),
            f"rows, from the top: new faces at temperature {' | '.join(map(str, TEMPERATURES))}",
        ),
    }
    columns = {"progressive": 1 + len(names), "resampled": 1 + CHOICES * len(names)}
    for name, (sheet, words) in sheets.items():
        path = directory / f"{name}.png"
        pictures.save(path, pictures.grid(sheet, columns.get(name, faces)))
        say(f"{path}: {words}")


def progressive(trained: TrainedModel, originals: Faces) -> Sheet:
    """Draws each face and its reconstructions from more and more resolutions, coarsest first.

    The groups of the other resolutions are at the mean of their prior given all groups above.
    """
    z, _ = trained.encode(originals)
    columns = [originals]
    for kept in np.logical_or.accumulate(_levels(trained)):
        columns.append(trained.redraw(z, keep=kept, temperature=0.0)[0])
    return _rows(columns)


def resampled(trained: TrainedModel, originals: Faces, seed: int) -> Sheet:
    """Draws each face's reconstruction, and it again with one resolution's latents resampled.

    The latents of all other resolutions stay the same, so the changes show what that resolution
    determines.
    """
    z = trained.sample_posterior(originals, seed=seed)
    columns = [trained.decode(z)]
    for changed in _levels(trained):
        for choice in range(CHOICES):
            columns.append(trained.redraw(z, keep=~changed, seed=(seed + choice) % 2**32)[0])
    return _rows(columns)


def temperatures(trained: TrainedModel, count: int, seed: int) -> Sheet:
    """Draws `count` new faces at each of `TEMPERATURES`; each column has the same noise."""
    return np.concatenate(
        [trained.sample(count, seed=seed, temperature=value) for value in TEMPERATURES]
    )


def _levels(trained: TrainedModel) -> Bool[np.ndarray, "level group"]:
    """For each resolution, coarsest first, whether each group has it."""
    resolutions = np.array(trained.model.resolutions())
    return np.array([resolutions == each for each in dict.fromkeys(resolutions)])


def _rows(columns: list[Faces]) -> Sheet:
    """Interleaves columns of faces to a sheet with one row for each face."""
    return np.stack(columns, axis=1).reshape(-1, *columns[0].shape[1:])
