"""Power spectra against a direct transform, closed forms, and degraded pictures."""

import io
import itertools
import zipfile

import hypothesis.strategies as st
import jax
import numpy as np
import pytest
import scipy
from hypothesis import given, settings
from PIL import Image

from vaejax.data.pictures.crops import crop_and_resize
from vaejax.metrics.bootstrap import resampled_means
from vaejax.metrics.spectrum import band_powers, bands, compare


def _noise(shape, seed=0, std=40.0):
    values = np.random.default_rng(seed).normal(127.5, std, shape)
    return np.clip(np.round(values), 0, 255).astype(np.uint8)


def _wave(height, width, vertical, horizontal, channels=3):
    """A grating of the given cycles per picture and amplitude 100."""
    rows, columns = np.arange(height)[:, None] / height, np.arange(width)[None] / width
    values = 127 + 100 * np.sin(2 * np.pi * (vertical * rows + horizontal * columns) + 0.3)
    return np.repeat(np.round(values).astype(np.uint8)[None, :, :, None], channels, axis=3)


def _direct(pictures):
    """Sums the periodogram over rings, with a whole transform in float64, band by band."""
    _, height, width, _ = pictures.shape
    # Every other value of a window with twice as many intervals lies in the middle of a pixel.
    sides = (scipy.signal.windows.hann(2 * side + 1)[1::2] for side in (height, width))
    window = np.outer(*sides)[None, :, :, None]
    values = pictures / 255
    values = values - (values * window).sum(axis=(1, 2), keepdims=True) / window.sum()
    power = (np.abs(np.fft.fft2(values * window, axes=(1, 2))) ** 2).mean(axis=-1)
    power /= height * width * (window**2).sum()
    y, x = np.meshgrid(np.fft.fftfreq(height), np.fft.fftfreq(width), indexing="ij")
    cycles = height * np.hypot(y, x)
    edges = [*(bands(height, width).low - 1e-6), np.inf]
    return np.stack(
        [
            power[:, (cycles >= low) & (cycles < high)].sum(axis=-1)
            for low, high in itertools.pairwise(edges)
        ],
        axis=-1,
    )


@settings(max_examples=8)
@given(height=st.integers(4, 40), width=st.integers(4, 40), channels=st.sampled_from([1, 3]))
def test_powers_equal_a_direct_transform(height, width, channels):
    pictures = _noise((2, height, width, channels))
    powers = np.asarray(band_powers(pictures))
    np.testing.assert_allclose(powers, _direct(pictures), rtol=1e-4, atol=1e-9)
    assert np.all(bands(height, width).share > 0)


@pytest.mark.parametrize("shape", [(28, 20), (64, 64), (48, 33)])
def test_white_noise_fills_each_band_by_its_share(shape):
    powers = np.asarray(band_powers(_noise((400, *shape, 3)))).mean(axis=0)
    share = bands(*shape).share
    # The removed mean lowers the first band, into which the window spreads it.
    np.testing.assert_allclose(powers[2:], (40 / 255) ** 2 * share[2:], rtol=0.05)
    assert powers.sum() == pytest.approx((40 / 255) ** 2, rel=0.02)


@pytest.mark.parametrize(
    ("cycles", "band"), [((0, 10), 6), ((10, 0), 6), ((18, 0), 8), ((25, 25), 9)]
)
def test_a_grating_lies_in_its_band(cycles, band):
    powers = np.asarray(band_powers(_wave(64, 64, *cycles)))[0]
    np.testing.assert_allclose(bands(64, 64).low, 2.0 ** (np.arange(10) / 2))
    assert powers[band] > 0.98 * powers.sum()
    # A sine has half the power of its squared amplitude.
    assert powers[band] == pytest.approx(0.5 * (100 / 255) ** 2, rel=0.03)


def test_cycles_count_along_the_height():
    """The same grating, in pixels, lies in the same band of a wide picture as of a square one."""
    for width in (64, 128):
        powers = band_powers(_wave(64, width, 0, 10 * width // 64))
        assert bands(64, width).low[np.argmax(powers)] == 8


def test_brightness_has_no_power_and_contrast_has_its_square():
    pictures = 2 * (_noise((3, 28, 20, 1)) // 4)
    np.testing.assert_allclose(band_powers(pictures + 100), band_powers(pictures), rtol=2e-3)
    np.testing.assert_allclose(4 * band_powers(pictures // 2), band_powers(pictures), rtol=2e-3)
    constant = np.full((1, 28, 20, 3), 77, np.uint8)
    np.testing.assert_allclose(band_powers(constant), 0, atol=1e-10)


def test_grey_pictures_count_like_equal_channels():
    grey = _noise((2, 28, 20, 1))
    np.testing.assert_allclose(band_powers(grey), band_powers(grey.repeat(3, axis=3)), rtol=1e-5)


def test_large_pictures_and_programs():
    assert jax.eval_shape(band_powers, np.zeros((2, 1024, 1024, 3), np.uint8)).shape == (2, 18)
    assert len(bands(1024, 1024).low) == 18
    assert jax.jit(band_powers)(_noise((2, 28, 20, 1))).shape == (2, len(bands(28, 20).low))
    with pytest.raises(ValueError, match="4×4"):
        band_powers(np.zeros((1, 3, 20, 1), np.uint8))


def test_comparison_in_closed_form():
    layout = bands(64, 64)
    real = np.linspace(2, 1, 10)
    gap = compare(real, real, layout)
    np.testing.assert_array_equal(gap.log_ratio, 0)
    assert (gap.distance, gap.missing) == (0, 0)
    # Half of the power is missing in the bands from 8 cycles on, which are the last four.
    blurred = np.concatenate([real[:6], real[6:] / 2])
    gap = compare(blurred, real, layout)
    np.testing.assert_allclose(gap.log_ratio, [0] * 6 + [-np.log10(2)] * 4, atol=1e-4)
    assert gap.missing == pytest.approx(0.5, abs=1e-4)
    assert gap.distance == pytest.approx(np.sqrt(0.4) * np.log10(2), rel=1e-4)
    assert compare(real, blurred, layout).missing == pytest.approx(-1, abs=1e-4)
    finest = compare(np.append(real[:9], 0.0), real, layout, fine=22.6)
    assert finest.missing == pytest.approx(1, abs=1e-4)
    several = compare(np.stack([real, blurred]), real[None], layout)
    assert several.missing == pytest.approx([0, 0.5], abs=1e-4)
    with pytest.raises(ValueError, match=r"begins at 40 cycles or above; the last: 22\.6"):
        compare(real, real, layout, fine=40.0)


def test_pictures_without_detail_compare_finitely():
    layout = bands(28, 20)
    real = np.asarray(band_powers(_noise((4, 28, 20, 1))), np.float64).mean(axis=0)
    gap = compare(np.zeros_like(real), real, layout)
    assert gap.missing == pytest.approx(1, abs=1e-3)
    # Noise of 40 levels against rounding, which is uniform over one level.
    np.testing.assert_allclose(gap.log_ratio[3:], np.log10(1 / 12 / 40**2), atol=0.2)
    assert compare(real * 0, real * 0, layout).distance == 0


def _blurred(pictures, sigma):
    smooth = scipy.ndimage.gaussian_filter(pictures.astype(np.float64), (0, sigma, sigma, 0))
    return np.round(smooth).astype(np.uint8)


def test_blur_lowers_powers_by_its_transfer_function():
    """Of noise, blurring leaves exp(-(2π σ f)²) of the power at f cycles per pixel."""
    pictures, sigma = _noise((60, 64, 64, 1)), 1.0
    mean = [
        np.asarray(band_powers(x), np.float64).mean(axis=0)
        for x in (pictures, _blurred(pictures, sigma))
    ]
    gap = compare(mean[1], mean[0], bands(64, 64))
    y, x = np.meshgrid(np.fft.fftfreq(64), np.fft.fftfreq(64), indexing="ij")
    transfer, cycles = np.exp(-((2 * np.pi * sigma) ** 2) * (y**2 + x**2)), 64 * np.hypot(y, x)
    for band, low in enumerate(bands(64, 64).low[3:9], 3):
        expected = transfer[(cycles >= low) & (cycles < low * np.sqrt(2))].mean()
        assert gap.log_ratio[band] == pytest.approx(np.log10(expected), abs=0.04)


def _jpeg(pictures, quality):
    decoded = []
    for picture in pictures:
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "jpeg", quality=quality)
        decoded.append(np.asarray(Image.open(file)))
    return np.stack(decoded)


def test_real_faces_show_blur_noise_and_jpeg(real_faces):
    """Against the distance of half of the faces from the other half, the floor."""
    path = real_faces / "celeba" / "img_align_celeba.zip"
    if not path.is_file():
        pytest.skip(f"the CelebA faces are not here: {path}")
    with zipfile.ZipFile(path) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))
        faces = np.stack(
            [
                np.asarray(crop_and_resize(Image.open(archive.open(name)), "nvae148", (64, 64)))
                for name in np.random.default_rng(0).permutation(names)[:800]
            ]
        )
    real, others = faces[:400], faces[400:]
    layout = bands(64, 64)
    rows = np.asarray(band_powers(real), np.float64)

    def gap(pictures):
        return compare(
            np.asarray(band_powers(pictures), np.float64).mean(axis=0), rows.mean(axis=0), layout
        )

    floor = gap(others)
    assert floor.distance < 0.06
    blurred = gap(_blurred(others, 0.5))
    assert blurred.distance > 3 * floor.distance
    assert 0.2 < blurred.missing < 0.4
    noise = np.random.default_rng(0).normal(0, 5, others.shape)
    noisy = gap(np.clip(np.round(others + noise), 0, 255).astype(np.uint8))
    deviation = compare(resampled_means(rows), rows.mean(axis=0)[None], layout).log_ratio.std(
        axis=0
    )
    assert noisy.log_ratio[-1] - floor.log_ratio[-1] > 5 * deviation[-1]
    assert gap(_jpeg(others, 50)).log_ratio[-1] - floor.log_ratio[-1] < -3 * deviation[-1]
