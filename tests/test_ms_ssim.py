"""Compares MS-SSIM with TensorFlow's, and with a plain one in float64."""

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest
import scipy.ndimage

from vaejax.metrics.ms_ssim import ms_ssim, ms_ssim_protocol

# Exponents of the paper.
PAPER = np.array([0.0448, 0.2856, 0.3001, 0.2363, 0.1333])


def _pair(height, width, channels=3, spread=20.0, seed=0):
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, 200, (2, height, width, channels))
    a = np.clip(127 + scipy.ndimage.gaussian_filter(noise, (0, 3, 3, 0)) * 4, 0, 255)
    b = np.clip(a + rng.normal(0, spread, a.shape), 0, 255)
    return a.astype(np.uint8), b.astype(np.uint8)


def _plain(a, b, scales):
    """MS-SSIM of two grey pictures in float64, with SciPy's correlation of whole windows."""
    weights = PAPER[:scales] / PAPER[:scales].sum()
    line = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    window = np.outer(line, line) / line.sum() ** 2

    def mean(x):
        return scipy.ndimage.correlate(x, window)[5:-5, 5:-5]

    a, b, result = a.astype(np.float64), b.astype(np.float64), 1.0
    for scale in range(scales):
        mean_a, mean_b = mean(a), mean(b)
        var_a, var_b = mean(a**2) - mean_a**2, mean(b**2) - mean_b**2
        similarity = (2 * (mean(a * b) - mean_a * mean_b) + 7.65**2) / (var_a + var_b + 7.65**2)
        if scale == scales - 1:
            similarity *= (2 * mean_a * mean_b + 2.55**2) / (mean_a**2 + mean_b**2 + 2.55**2)
        result *= max(similarity.mean(), 0) ** weights[scale]
        # Each pixel with its right and lower neighbours; SciPy mirrors the last one at the edge.
        a, b = (
            scipy.ndimage.uniform_filter(x, 2, origin=-1, mode="reflect")[::2, ::2] for x in (a, b)
        )
    return result


@pytest.mark.parametrize(
    "shape", [(176, 192, 3), (161, 170, 1)], ids=["even sides", "odd sides and grey"]
)
def test_five_scales_equal_tensorflow(shape):
    tf = pytest.importorskip("tensorflow", reason="its ssim_multiscale is the reference")
    a, b = _pair(*shape)
    with tf.device("CPU"):
        expected = tf.image.ssim_multiscale(tf.constant(a), tf.constant(b), max_val=255).numpy()
    np.testing.assert_allclose(ms_ssim(a, b), expected, atol=2e-5)
    assert ms_ssim_protocol(*shape[:2])["scales"] == 5


@pytest.mark.parametrize(
    ("height", "width", "scales"),
    [(28, 20, 1), (21, 30, 2), (64, 64, 3), (41, 57, 3), (81, 90, 4), (161, 163, 5)],
)
@pytest.mark.parametrize("spread", [2, 60])
def test_small_pictures_have_fewer_scales(height, width, scales, spread):
    a, b = _pair(height, width, spread=spread)
    expected = [
        np.mean([_plain(x[..., c], y[..., c], scales) for c in range(3)]) for x, y in zip(a, b)
    ]
    np.testing.assert_allclose(ms_ssim(a, b), expected, atol=2e-5)
    protocol = ms_ssim_protocol(height, width)
    weights = [float(weight) for weight in str(protocol["weights"]).split(",")]
    assert protocol["scales"] == len(weights) == scales
    assert sum(weights) == pytest.approx(1, abs=2e-4)


def test_unlike_pictures_give_numbers():
    """Without the bound at 0, a negative similarity to the power of a weight would be NaN."""
    a, _ = _pair(64, 64)
    np.testing.assert_array_equal(ms_ssim(a, 255 - a), 0)
    black = np.zeros_like(a)
    assert np.all(np.isfinite(ms_ssim(black, 255 - black)))


@hypothesis.given(st.integers(0, 2**32 - 1), st.floats(0, 80))
@hypothesis.settings(max_examples=15)
def test_is_symmetric_and_at_most_one(seed, spread):
    a, b = _pair(24, 32, channels=1, spread=spread, seed=seed)
    np.testing.assert_allclose(ms_ssim(a, a), 1, atol=1e-6)
    np.testing.assert_allclose(ms_ssim(a, b), ms_ssim(b, a), atol=1e-6)
    assert np.all(ms_ssim(a, b) <= 1 + 1e-6)


def test_refuses_pictures_smaller_than_its_window():
    with pytest.raises(ValueError, match="11×11"):
        ms_ssim(np.zeros((1, 10, 20, 1), np.uint8), np.zeros((1, 10, 20, 1), np.uint8))


def test_can_be_part_of_a_program():
    assert jax.eval_shape(ms_ssim, *_pair(64, 64)).shape == (2,)
