"""Compares the three resizes of the FID with those of torch-fidelity, torch and Pillow."""

import jax
import numpy as np
import pytest
from cpu_torchvision import skip_without_torchvision
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vaejax.features.resizing import RESIZES, SIDE, resize

# In grey levels of 255: rounding errors of float32, which torch makes in the positions too.
TOLERANCE = {"tf": 2e-4, "pytorch": 2e-3, "clean": 2e-4}
SIZES = [(64, 64), (1, 2), (61, 83), (SIDE, SIDE), (218, 178), (31, 1024), (700, 301)]


def _noise(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def _tensorflow(pictures):
    """The operation of the FID's graph, with the arguments that it has there."""
    tensorflow = pytest.importorskip("tensorflow")
    return tensorflow.raw_ops.ResizeBilinear(
        images=pictures, size=(SIDE, SIDE), align_corners=False, half_pixel_centers=False
    ).numpy()


def _torch(pictures):
    torch = pytest.importorskip("torch")
    resized = torch.nn.functional.interpolate(
        _channels_first(pictures), size=(SIDE, SIDE), mode="bilinear", align_corners=False
    )
    return resized.permute(0, 2, 3, 1).numpy()


def _pillow(pictures):
    """Each channel by itself, as a picture of floats."""

    def resized(channel):
        image = Image.fromarray(channel.astype(np.float32))
        return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BICUBIC))

    channels = np.moveaxis(pictures, -1, 1)
    resized_channels = np.array([[resized(channel) for channel in one] for one in channels])
    return np.clip(np.moveaxis(resized_channels, 1, -1), 0, 255)


REFERENCES = {"tf": _tensorflow, "pytorch": _torch, "clean": _pillow}


def _channels_first(pictures):
    torch = pytest.importorskip("torch")
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float()


def _assert_close(resized, expected, kernel):
    np.testing.assert_allclose(resized, expected, atol=TOLERANCE[kernel], rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("kernel", RESIZES)
@pytest.mark.parametrize("size", SIZES)
def test_resize_equals_its_reference(kernel, size):
    pictures = _noise((2, *size, 3))
    resized = resize(pictures, kernel)
    assert resized.shape == (2, SIDE, SIDE, 3) and resized.dtype == np.float32
    _assert_close(resized, REFERENCES[kernel](pictures), kernel)


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_resizes_of_torch_fidelity_and_clean_fid(size):
    skip_without_torchvision()
    tensorflow_like = pytest.importorskip("torch_fidelity.interpolate_compat_tensorflow")
    clean = pytest.importorskip("cleanfid.resize")
    pictures = _noise((1, *size, 3))
    theirs = tensorflow_like.interpolate_bilinear_2d_like_tensorflow1x(
        _channels_first(pictures), size=(SIDE, SIDE), align_corners=False
    )
    _assert_close(resize(pictures, "tf"), theirs.permute(0, 2, 3, 1), "tf")
    _assert_close(resize(pictures, "clean")[0], clean.build_resizer("clean")(pictures[0]), "clean")


@given(pixels=st.integers(1, 2000), kernel=st.sampled_from(sorted(RESIZES)))
def test_rows_of_any_length(pixels, kernel):
    """One row of noise: the matrix by itself, which needs no compiled program."""
    row = _noise((1, 1, pixels, 1), seed=pixels)
    matrix = RESIZES[kernel].matrix(pixels)
    expected = REFERENCES[kernel](row)[0, 0, :, 0]
    resized = np.clip(matrix @ row[0, 0, :, 0].astype(np.float32), 0, 255)
    # The references compute positions in float32, whose rounding grows with the row.
    rounding = 255 * pixels * float(np.finfo(np.float32).eps)
    np.testing.assert_allclose(resized, expected, atol=TOLERANCE[kernel] + rounding, rtol=0)
    np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-6)


def test_the_three_differ():
    """By far more than the tolerances."""
    pictures = _noise((1, 40, 56, 3))
    tf, pytorch, clean = (np.asarray(resize(pictures, name)) for name in RESIZES)
    for a, b in ((tf, pytorch), (tf, clean), (pytorch, clean)):
        assert np.abs(a - b).mean() > 5


def test_resize_of_grey_pictures_in_a_program():
    pictures = _noise((3, 20, 30, 1))
    compiled = jax.jit(resize, static_argnames="kernel")(pictures, kernel="clean")
    _assert_close(compiled, _pillow(pictures), "clean")
