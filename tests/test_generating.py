"""The pictures that an evaluation compares are those of the trained model, on any devices."""

import pathlib

import jax
import numpy as np
import pytest
from parameters import away_from_start
from tiny import tiny, tiny_ladder

from vaejax.evaluation.picture_sets import PictureSet, first
from vaejax.models import build_model
from vaejax.runtime.mesh import make_mesh
from vaejax.tasks.vae.generating import Generator
from vaejax.trained.model import TrainedModel

ROWS = np.array([5, 0, 3, 9, 7])


def all_of(pictures: PictureSet) -> np.ndarray:
    """Returns all pictures of a set."""
    return np.concatenate(list(first(pictures.batches(), pictures.count)))


@pytest.fixture(scope="module", params=[tiny, tiny_ladder])
def model(request) -> TrainedModel:
    """Returns a model whose batches are of four pictures, with parameters away from the start."""
    config = request.param(eval={"batch_size": 4})
    params = away_from_start(build_model(config), config)
    return TrainedModel(config, params, 1, pathlib.Path(), {}, 0)


@pytest.fixture(scope="module")
def faces(model) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (10, *model.config.data.shape), np.uint8)


def generator(model: TrainedModel, devices: int) -> Generator:
    mesh = make_mesh(devices, devices=jax.devices()[:devices])
    return Generator(model.config, model.params, mesh)


def assert_same_pictures(found: np.ndarray, expected: np.ndarray) -> None:
    """Asserts equality but for rounding, which may change a few values by one grey level."""
    difference = np.abs(found.astype(int) - expected.astype(int))
    assert found.shape == expected.shape and difference.max() <= 1 and difference.mean() < 0.01


@pytest.mark.parametrize(
    "devices", [1, pytest.param(2, marks=pytest.mark.slow), pytest.param(4, marks=pytest.mark.slow)]
)
def test_pictures_are_those_of_the_trained_model(model, faces, devices):
    generate = generator(model, devices)
    assert generate.batch_size == 4
    assert_same_pictures(all_of(generate.samples(6)), model.sample(6))
    assert_same_pictures(all_of(generate.samples(6, seed=3)), model.sample(6, seed=3))
    reconstructed = all_of(generate.reconstructions(faces, ROWS))
    assert_same_pictures(reconstructed, model.reconstruct(faces[ROWS]))
    decoded = all_of(generate.decoded_codes(faces, ROWS, seed=2))
    assert_same_pictures(decoded, model.reconstruct(faces[ROWS], seed=2))
    means, _ = model.encode(faces[ROWS])
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), generate.codes(faces, ROWS), means
    )
    assert_same_pictures(all_of(generate.decoded(means)), model.decode(means))


def test_midpoints_lie_between_a_code_and_its_nearest_neighbour(model, faces):
    means, _ = model.encode(faces[ROWS])
    flat = np.concatenate([leaf.reshape(5, -1) for leaf in jax.tree.leaves(means)], axis=1)
    distances = np.linalg.norm(flat[:, None] - flat[None], axis=2) + np.diag([np.inf] * 5)
    other = distances.argmin(axis=1)
    expected = model.decode(jax.tree.map(lambda leaf: (leaf + leaf[other]) / 2, means))
    assert_same_pictures(all_of(generator(model, 1).neighbour_midpoints(faces, ROWS)), expected)


@pytest.mark.slow
def test_interpolations_of_a_face_with_itself_are_its_reconstruction(model, faces):
    same = np.array([4, 4, 4])
    found = all_of(generator(model, 1).interpolations(faces, same))
    assert_same_pictures(found, model.reconstruct(faces[same]))
    mixed = all_of(generator(model, 1).interpolations(faces, np.array([4, 8])))
    # Halfway from the first to the second is halfway back.
    assert_same_pictures(mixed[:1], mixed[1:])
    assert np.any(mixed[0] != found[0])
