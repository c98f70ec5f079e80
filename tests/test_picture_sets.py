"""Which sets of pictures an evaluation compares, and which metrics these allow."""

import dataclasses
import pathlib

import numpy as np
import pytest
from parameters import away_from_start
from tiny import least

from vaejax.data import Dataset, Split, open_dataset
from vaejax.errors import UserError
from vaejax.evaluation.choosing import measurable, thumbnails
from vaejax.evaluation.metric import Metric
from vaejax.evaluation.metrics.manifold import manifold
from vaejax.evaluation.metrics.novelty import novelty
from vaejax.evaluation.metrics.spectrum import spectrum
from vaejax.evaluation.picture_sets import FLOOR, REAL, REAL_SETS, TRAIN_ALL, PictureSet
from vaejax.models import build_model
from vaejax.runtime.mesh import make_mesh
from vaejax.tasks.vae.figures import slices
from vaejax.tasks.vae.generating import Generator
from vaejax.trained.model import TrainedModel
from vaejax.trained.picture_sets import Measured, measured_faces, sets_of

METRICS = [
    spectrum("spectrum", 28, 28),
    manifold("manifold", thumbnails, "x"),
    novelty("novelty", thumbnails, "x"),
]


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return open_dataset(least().data)


def sets(dataset: Dataset, split: str, samples: int = 9) -> dict[str, PictureSet]:
    """Returns the sets of a model; nothing is compiled, as no picture is drawn."""
    config = least()
    params = away_from_start(build_model(config), config)
    trained = TrainedModel(config, params, 1, pathlib.Path(), {}, 0)
    generator = Generator(config, params, make_mesh(2))
    return sets_of(trained, generator, measured_faces(dataset, split, 0), samples, "model", 1.0)


def names(metrics: list[Metric]) -> list[str]:
    return [metric.name for metric in metrics]


def pictures(one: PictureSet) -> np.ndarray:
    return np.concatenate(list(one.batches()))


def test_the_floor_is_of_as_many_training_faces_as_samples(dataset):
    found = sets(dataset, "valid")
    assert found[FLOOR].count == 9 and found[REAL].count == 24 and found[TRAIN_ALL].count == 64
    train = {picture.tobytes() for picture in dataset.splits["train"].images}
    assert all(picture.tobytes() in train for picture in pictures(found[FLOOR]))
    assert names(measurable(METRICS, found, named=True)) == ["spectrum", "manifold", "novelty"]


def test_of_training_faces_no_copies_are_searched(dataset, capsys):
    found = sets(dataset, "train")
    held_out = {picture.tobytes() for picture in dataset.splits["valid"].images}
    assert all(picture.tobytes() in held_out for picture in pictures(found[FLOOR]))
    assert names(measurable(METRICS, found, named=False)) == ["spectrum", "manifold"]
    assert "the metric 'novelty' needs all train pictures beside" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"'novelty' needs all train pictures .*--metrics$"):
        measurable(METRICS, found, named=True)


def test_without_other_real_faces_there_is_no_floor(dataset, capsys):
    alone = dataclasses.replace(dataset, splits={"train": dataset.splits["train"]})
    found = sets(alone, "train")
    assert found.keys() & set(REAL_SETS) == {REAL}
    assert measurable(METRICS, found, named=False) == []
    assert "'spectrum' needs other real pictures beside" in capsys.readouterr().err


def test_too_few_pictures_are_named(dataset, capsys):
    found = sets(dataset, "valid", samples=4)
    assert names(measurable(METRICS, found, named=False)) == ["spectrum", "novelty"]
    assert "'manifold' needs 6 pictures of each set, and there are 4 samples" in (
        capsys.readouterr().err
    )


def test_pictures_are_grouped_by_attribute_or_else_by_folder(dataset):
    """A picture may have several attributes, and lies in one folder."""
    images = dataset.splits["valid"].images[:4]
    names = np.array(["sad/a.png", "glad/b.png", "sad/c.png", "d.png"])
    attributes = np.array([[1, 0], [1, 1], [0, 0], [0, 1]])
    split = Split(images, {}, names)
    kind, groups = measured_faces(Dataset({"valid": split}, {}, {}), "valid", 0).groups()
    assert kind == "folder" and list(groups) == [".", "glad", "sad"]
    np.testing.assert_array_equal(groups["sad"], [True, False, True, False])
    labelled = Split(images, {"attributes": attributes}, names)
    fingerprint = {"attribute_names": ["Male", "Smiling"]}
    faces = measured_faces(Dataset({"valid": labelled}, fingerprint, {}), "valid", 0)
    kind, groups = faces.groups()
    assert kind == "attribute"
    np.testing.assert_array_equal(groups["Smiling"], [False, True, False, True])
    few = Measured(Dataset({"valid": labelled}, fingerprint, {}), "valid", np.array([1, 3]))
    np.testing.assert_array_equal(few.groups()[1]["Male"], [True, False])
    alone = Split(images, {}, np.array(["a.png", "b.png", "c.png", "d.png"]))
    assert measured_faces(Dataset({"valid": alone}, {}, {}), "valid", 0).groups()[1] == {}


def test_groups_are_measured_with_their_spreads():
    values = {"elbo_bits_per_dim": np.arange(40.0), "psnr": np.arange(40.0) ** 2}
    young, few = np.arange(40) < 25, np.arange(40) < 3
    charts = slices({"Young": young, "Bald": few}, values, "attribute")
    chart = charts["psnr_by_attribute"]
    assert chart["x"] == ["all (40)", "Young (25)"] and chart["title"] == "PSNR, dB by attribute"
    expected = [values["psnr"].mean(), values["psnr"][:25].mean()]
    np.testing.assert_allclose(chart["lines"]["PSNR, dB"], expected)
    spread = values["psnr"][:25].std() / 5
    np.testing.assert_allclose(chart["spreads"]["PSNR, dB"][1], spread, rtol=0.2)
    assert slices({"Bald": few}, values, "attribute") == {}
