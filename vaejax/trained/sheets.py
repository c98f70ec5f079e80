"""Draws the pictures of a report: samples, reconstructions, and the nearest training faces."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Int64, UInt8

from vaejax.data.feed.subsets import random_rows
from vaejax.evaluation.observing import KEPT
from vaejax.evaluation.picture_sets import SAMPLES, TRAIN_ALL, PictureSet, first
from vaejax.metrics.neighbours import nearest
from vaejax.records.pictures import grid, interleave_rows
from vaejax.tasks.vae.generating import Generator
from vaejax.trained.measurements import Measurement
from vaejax.trained.picture_sets import Measured, Rows

_COLUMNS, _ROWS, _GROUPS = 12, 5, 4
Sheet = UInt8[np.ndarray, "height width channel"]


def sheets(
    generator: Generator,
    faces: Measured,
    sets: Mapping[str, PictureSet],
    measured: Measurement,
) -> dict[str, Sheet]:
    """Draws the sheets by title.

    Args:
      generator: generates the pictures of the model.
      faces: the measured faces.
      sets: the sets that were measured, by name.
      measured: all that was measured; sheets of what was left out are left out.
    """
    shown = {}
    if SAMPLES in sets:
        shown["Samples"] = grid(_pictures(sets[SAMPLES], _COLUMNS * _ROWS), _COLUMNS)
    pairs = {"Reconstructions below their originals": faces.rows[: 2 * _COLUMNS]}
    if "psnr" in measured.of_pictures:
        psnr = measured.of_pictures["psnr"]
        pairs["Worst reconstructions (lowest PSNR)"] = faces.rows[np.argsort(psnr)[:_COLUMNS]]
        pairs |= _hardest_groups(faces, psnr)
    for title, rows in pairs.items():
        originals = np.asarray(faces.images[rows])
        decoded = _pictures(generator.reconstructions(faces.images, rows), len(rows))
        shown[title] = grid(interleave_rows(originals, decoded, _COLUMNS), _COLUMNS)
    for name, drawn in measured.rows.get(SAMPLES, {}).items():
        if name not in measured.rows.get(TRAIN_ALL, {}):
            continue
        found = nearest(drawn.kept, measured.rows[TRAIN_ALL][name].kept, 1)
        closest = np.argsort(found.distances[:, 0])[:_COLUMNS]
        train = faces.dataset.splits["train"].images
        copied = train[random_rows(len(train), KEPT)[found.indices[closest, 0]]]
        shown[f"The samples nearest to a training face, which is below ({name})"] = grid(
            interleave_rows(_some(sets[SAMPLES], closest), copied, _COLUMNS), _COLUMNS
        )
    return shown


def _hardest_groups(faces: Measured, psnr: Float[np.ndarray, "picture"]) -> dict[str, Rows]:
    """Returns the first rows of the groups with the lowest mean PSNR, by the title of a sheet."""
    kind, groups = faces.groups()
    within = {name: places for name, places in groups.items() if places.sum() >= _COLUMNS}
    hardest = sorted(within, key=lambda name: psnr[within[name]].mean())[:_GROUPS]
    rows = {name: faces.rows[within[name]][:_COLUMNS] for name in hardest}
    title = f"Reconstructions by {kind}, where PSNR is lowest: {', '.join(hardest)}"
    return {title: np.concatenate(list(rows.values()))} if rows else {}


def _pictures(pictures: PictureSet, count: int) -> UInt8[np.ndarray, "batch height width channel"]:
    """Returns the first `count` pictures of a set, fewer if it has fewer."""
    return np.concatenate(list(first(pictures.batches(), min(count, pictures.count))))


def _some(
    pictures: PictureSet, chosen: Int64[np.ndarray, "chosen"]
) -> UInt8[np.ndarray, "chosen height width channel"]:
    """Returns the pictures of a set with these numbers; generates it anew up to the last one."""
    found, start = {}, 0
    for batch in first(pictures.batches(), int(chosen.max()) + 1):
        for number in chosen[(chosen >= start) & (chosen < start + len(batch))]:
            found[number] = batch[number - start]
        start += len(batch)
    return np.stack([found[number] for number in chosen])
