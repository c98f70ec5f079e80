"""The sets of pictures that the evaluation of a trained model compares."""

import hashlib
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int64, UInt8

from vaejax.data import Dataset
from vaejax.data.feed.subsets import random_order, random_rows
from vaejax.data.folders import classes, folders_of
from vaejax.errors import UserError
from vaejax.evaluation.observing import KEPT
from vaejax.evaluation.picture_sets import (
    DECODED,
    FLOOR,
    INTERPOLATIONS,
    MIDPOINTS,
    REAL,
    RECONSTRUCTIONS,
    SAMPLES,
    TRAIN_ALL,
    PictureSet,
    rows_of,
)
from vaejax.files.strict_json import dumps
from vaejax.records.progress import counting
from vaejax.tasks.vae.generating import Generator
from vaejax.trained.arguments import Latents, Temperature, as_temperatures
from vaejax.trained.batching import joined
from vaejax.trained.model import TrainedModel
from vaejax.trained.prior_files import OWN_PRIOR

Pictures = UInt8[np.ndarray, "picture height width channel"]
Rows = Int64[np.ndarray, "row"]


class Measured(NamedTuple):
    """Some pictures of a split.

    Attributes:
      dataset: the data set.
      split: name of the split.
      rows: their rows in it.
    """

    dataset: Dataset
    split: str
    rows: Rows

    @property
    def images(self) -> Pictures:
        """All pictures of the split."""
        return self.dataset.splits[self.split].images

    def groups(self) -> tuple[str, dict[str, Bool[np.ndarray, "picture"]]]:
        """Returns what groups the pictures, and which of the chosen ones are in each group.

        It is `attribute` or, for data without attributes, `folder`; there may be no groups.
        """
        attributes = self.attributes()
        kind, groups = ("attribute", attributes) if attributes else ("folder", self.folders())
        return kind, {name: of_split[self.rows] for name, of_split in groups.items()}

    def attributes(self) -> dict[str, Bool[np.ndarray, "picture"]]:
        """Returns whether each picture of the split has an attribute, by its name; may be empty."""
        names = self.dataset.fingerprint.get("attribute_names", [])
        columns = self.dataset.splits[self.split].labels.get("attributes")
        if columns is None or not names:
            return {}
        return {name: np.asarray(columns[:, i]) > 0 for i, name in enumerate(names)}

    def folders(self) -> dict[str, Bool[np.ndarray, "picture"]]:
        """Returns whether each picture of the split lies in a folder, by the folder's name.

        It is empty if all lie in one folder, or if there are too many to be classes.
        """
        folders = folders_of(self.dataset.splits[self.split].names)
        return {name: folders == name for name in classes(folders)}

    def as_set(self) -> PictureSet:
        """Returns the pictures as a set, whose statistics can be cached."""
        chosen = hashlib.sha256(self.rows.tobytes()).hexdigest()
        identity = dumps({"data": self.dataset.fingerprint, "split": self.split, "rows": chosen})
        return rows_of(self.images, self.rows, identity=identity)


def measured_faces(dataset: Dataset, split: str, count: int) -> Measured:
    """Chooses the pictures to measure, at random but always the same ones.

    Args:
      dataset: the data set.
      split: name of the split.
      count: number of pictures; 0 for all.

    Raises:
      UserError: the data has no such split, or fewer than two pictures are chosen.
    """
    if split not in dataset.splits:
        raise UserError(
            f"the data has no split {split!r}; it has {', '.join(dataset.splits)}: name one with "
            "--split"
        )
    size = len(dataset.splits[split].images)
    rows = random_rows(size, count)
    if len(rows) < 2:
        raise UserError(
            f"{len(rows)} of the {size} pictures of the split {split!r} are too few "
            "to measure; at least 2 are needed"
        )
    return Measured(dataset, split, rows)


def sets_of(
    trained: TrainedModel,
    generator: Generator,
    measured: Measured,
    samples: int,
    prior: str,
    temperature: Temperature,
) -> dict[str, PictureSet]:
    """Returns the sets by name, see `evaluation.picture_sets`.

    The floor is of as many training faces as there are samples, as far as there are so many. Where
    training faces are measured, it is of faces of another split, if there is one, and there is no
    set to search copies in.

    Args:
      trained: the model.
      generator: generates its pictures.
      measured: the pictures to measure.
      samples: number of samples; with 0 there are only the faces and their reconstructions.
      prior: the prior of the samples, `model` or the name of a fitted one.
      temperature: standard deviation of its noise, one number, or for a ladder several.

    Raises:
      UserError: a temperature is out of its range, or their number is wrong.
    """
    dataset, images, rows = measured.dataset, measured.images, measured.rows
    sets = {
        REAL: measured.as_set(),
        RECONSTRUCTIONS: generator.reconstructions(images, rows),
    }
    if not samples:
        return sets
    if prior == OWN_PRIOR:
        spread = as_temperatures(temperature, trained.model.resolutions())
        drawn = generator.samples(samples, temperature=spread)
    else:
        drawn = generator.decoded(_codes(trained, samples, prior, temperature))
    train = dataset.splits["train"].images
    sets |= {
        SAMPLES: drawn,
        MIDPOINTS: generator.neighbour_midpoints(images, rows),
        INTERPOLATIONS: generator.interpolations(images, rows),
        DECODED: generator.decoded_codes(train, random_rows(len(train), samples)),
    }
    others = [name for name in ("train", "valid", "test") if name in dataset.splits]
    other = next((name for name in others if name != measured.split), None)
    if other:
        order = random_order(len(dataset.splits[other].images), samples)
        sets[FLOOR] = Measured(dataset, other, order).as_set()
    if measured.split != "train":
        sets[TRAIN_ALL] = Measured(dataset, "train", random_rows(len(train), KEPT)).as_set()
    return sets


def _codes(trained: TrainedModel, count: int, prior: str, temperature: Temperature) -> Latents:
    """Samples codes from a fitted prior, and shows progress: a flow takes minutes."""
    batches = []
    with counting("sampling the codes of", count) as advance:
        for batch in trained.sample_codes_in_batches(count, prior=prior, temperature=temperature):
            batches.append(batch)
            advance(len(batch))
    return joined(batches)
