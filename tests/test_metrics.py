"""Compares the image metrics with scikit-image, closed forms and SciPy."""

import jax
import numpy as np
import pytest
import scipy
import skimage.metrics

from vaejax.metrics import frechet_distance, psnr, ssim, thumbnail_features

SHAPE = (2, 20, 28, 3)


def _pair(shape=SHAPE, spread=20):
    rng = np.random.default_rng(0)
    smooth = 127 + 90 * np.sin(np.arange(np.prod(shape)).reshape(shape) / 37)
    a = np.clip(smooth + rng.normal(0, 10, shape), 0, 255).astype(np.uint8)
    b = np.clip(a + rng.normal(0, spread, shape), 0, 255).astype(np.uint8)
    return a, b


def _constant(level):
    return np.full(SHAPE, level, np.uint8)


# Most pairs have one shape and so share a program.
PAIRS = {
    "rgb": _pair(),
    "smallest and grey": _pair((2, 7, 9, 1)),
    "faint": _pair(spread=1),
    "noise": tuple(np.random.default_rng(0).integers(0, 256, (2, *SHAPE), np.uint8)),
    "float": tuple(x.astype(np.float32) * np.float32(0.731) for x in _pair()),
    "constant": (_constant(250), _constant(251)),
    "black and white": (_constant(0), _constant(255)),
    "picture and constant": (_pair()[0], _constant(255)),
}


@pytest.mark.parametrize("name", PAIRS)
def test_psnr_equals_scikit_image(name):
    a, b = PAIRS[name]
    expected = [skimage.metrics.peak_signal_noise_ratio(x, y, data_range=255) for x, y in zip(a, b)]
    np.testing.assert_allclose(psnr(a, b), expected, atol=1e-4)


@pytest.mark.parametrize("name", PAIRS)
def test_ssim_equals_scikit_image(name):
    a, b = PAIRS[name]
    # In float64, because scikit-image computes float32 inputs in float32.
    expected = [
        skimage.metrics.structural_similarity(x, y, data_range=255, channel_axis=-1)
        for x, y in zip(a.astype(np.float64), b.astype(np.float64))
    ]
    np.testing.assert_allclose(ssim(a, b), expected, atol=1e-4)


def test_a_picture_equals_itself():
    for a, _ in PAIRS.values():
        np.testing.assert_allclose(ssim(a, a), 1, atol=1e-6)
        assert np.all(np.isinf(psnr(a, a)))


def test_ssim_refuses_pictures_smaller_than_its_window():
    with pytest.raises(ValueError, match="7×7"):
        ssim(np.zeros((1, 6, 20, 1), np.uint8), np.zeros((1, 6, 20, 1), np.uint8))


def test_metrics_can_be_part_of_a_program():
    """They compute nothing on the host, where tracers have no values."""

    def metrics(a, b):
        return psnr(a, b), ssim(a, b), thumbnail_features(a)

    shapes = [result.shape for result in jax.eval_shape(metrics, *PAIRS["rgb"])]
    assert shapes == [(2,), (2,), (2, 192)]


@pytest.mark.parametrize(("shape", "size"), [((30, 17), 8), ((5, 8), 8), ((16, 12), 4)])
def test_thumbnails_weigh_pixels_by_area(shape, size):
    images = np.random.default_rng(0).integers(0, 256, (2, *shape, 3), np.uint8)
    # With every pixel repeated `size` × `size` times, both sides are multiples of `size`.
    fine = images.repeat(size, axis=1).repeat(size, axis=2).astype(np.float64)
    blocks = fine.reshape(2, size, shape[0], size, shape[1], 3).mean(axis=(2, 4))
    features = thumbnail_features(images, size) if size != 8 else thumbnail_features(images)
    np.testing.assert_allclose(features, blocks.reshape(2, -1) / 255, atol=1e-6)


def _with_moments(mean, covariance, count, seed=0):
    """Returns features whose mean and unbiased (N - 1) covariance are exactly those given."""
    x = np.random.default_rng(seed).normal(size=(count, len(mean)))
    x -= x.mean(axis=0)
    white = np.linalg.solve(np.linalg.cholesky(x.T @ x / (count - 1)), x.T).T
    return mean + white @ np.linalg.cholesky(covariance).T


def test_frechet_of_commuting_covariances():
    std_a, std_b = np.array([1.0, 2.0, 0.5]), np.array([0.3, 2.0, 4.0])
    a = _with_moments(np.zeros(3), np.diag(std_a**2), 50)
    b = _with_moments(np.array([1.0, -2.0, 0.0]), np.diag(std_b**2), 80, seed=1)
    # |m_a - m_b|² + Σ (s_a - s_b)².
    assert frechet_distance(a, b) == pytest.approx(5 + np.sum((std_a - std_b) ** 2), rel=1e-9)
    assert frechet_distance(b, a) == pytest.approx(frechet_distance(a, b), rel=1e-9)


def test_frechet_equals_scipy():
    rng = np.random.default_rng(0)
    a = rng.normal(size=(300, 20)) @ rng.normal(size=(20, 20))
    b = rng.normal(size=(400, 20)) @ rng.normal(size=(20, 20)) + 1
    cov_a, cov_b = np.cov(a.T), np.cov(b.T)
    root = scipy.linalg.sqrtm(cov_a @ cov_b).real
    gap = np.sum((a.mean(axis=0) - b.mean(axis=0)) ** 2)
    expected = gap + np.trace(cov_a + cov_b - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)


def test_frechet_with_fewer_pictures_than_features():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(10, 192)), rng.normal(size=(7, 192))
    # The trace of the root is a sum of singular values, here of the 10 × 7 inner products.
    centred_a, centred_b = a - a.mean(axis=0), b - b.mean(axis=0)
    overlap = np.linalg.svd(centred_a @ centred_b.T, compute_uv=False).sum() / np.sqrt(9 * 6)
    spread = np.sum(centred_a**2) / 9 + np.sum(centred_b**2) / 6
    gap = np.sum((a.mean(axis=0) - b.mean(axis=0)) ** 2)
    assert frechet_distance(a, b) == pytest.approx(gap + spread - 2 * overlap, rel=1e-7)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)


def test_frechet_of_pictures_without_variety():
    black, white = np.zeros((5, 192)), np.ones((5, 192))
    assert frechet_distance(black, black) == 0
    assert frechet_distance(black, white) == pytest.approx(192)


def test_frechet_needs_two_pictures():
    with pytest.raises(ValueError, match="two pictures"):
        frechet_distance(np.zeros((1, 3)), np.zeros((5, 3)))
