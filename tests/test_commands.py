"""Tests the commands as a user runs them, and the Python API on the run that they trained."""

import json
import shutil

import numpy as np
import pytest
from commands import assert_one_line, command
from PIL import Image
from tiny import CONFIG_FILE, LEAST, ONCE, metrics

import vaejax
from vaejax.errors import UserError
from vaejax.trained.measuring import measure

CONFIG = f"--config={CONFIG_FILE}"


def test_the_trained_model_is_usable_from_python(trained):
    model = vaejax.load(trained)
    faces = model.sample(12, seed=3)
    assert faces.shape == (12, 28, 28, 3) and faces.dtype == np.uint8
    np.testing.assert_array_equal(faces, model.sample(12, seed=3))
    assert np.any(faces != model.sample(12, seed=4))
    mean, std = model.encode(faces)
    assert mean.shape == std.shape == (12, 6) and np.all(std > 0)
    np.testing.assert_array_equal(model.decode(mean), model.reconstruct(faces))
    # The noise of a picture depends on its index, and not on the batch.
    bound = model.log_likelihood(faces, samples=2)
    np.testing.assert_allclose(model.log_likelihood(faces[:5], samples=2), bound[:5], rtol=1e-5)
    twins = model.log_likelihood(np.repeat(faces[:1], 12, axis=0), samples=1)
    assert len(np.unique(twins)) == 12
    bounds = [model.log_likelihood(faces, samples=k).mean() for k in (1, 16)]
    assert bounds[0] < bounds[1] < 0
    assert model.sample(3, prior="gaussian").shape == (3, 28, 28, 3)
    with pytest.raises(UserError, match=r"shapes \(12, 5\); this model takes \(batch, 6\)"):
        model.decode(mean[:, 1:])


def test_sample_writes_a_grid_or_files(trained, tmp_path):
    result = command("sample", f"--workdir={trained}", "--count=9", f"--out={tmp_path / 'g.png'}")
    assert result.returncode == 0, result.stderr
    assert picture(tmp_path / "g.png").shape == (*(3 * (84 + 2) + 2,) * 2, 3)
    result = command(
        "sample", f"--workdir={trained}", "--count=3", "--separate", f"--out={tmp_path / 'faces'}",
        "--prior=gaussian", "--temperature=0.8", "--seed=5",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    files = sorted((tmp_path / "faces").iterdir())
    assert [file.name for file in files] == ["000000.png", "000001.png", "000002.png"]
    expected = vaejax.load(trained).sample(3, prior="gaussian", temperature=0.8, seed=5)
    np.testing.assert_array_equal(np.stack([picture(file) for file in files]), expected)


def test_sample_writes_the_format_and_the_place_that_are_named(trained, tmp_path):
    for out, written, kind in (
        ("faces.jpg", "faces.jpg", "JPEG"),
        ("faces.WEBP", "faces.WEBP", "WEBP"),
        ("new/dir/", "new/dir/samples.png", "PNG"),
    ):
        result = command("sample", f"--workdir={trained}", "--count=4", f"--out={tmp_path}/{out}")
        assert result.returncode == 0, result.stderr
        with Image.open(tmp_path / written) as image:
            assert image.format == kind


def test_separate_faces_of_two_seeds_are_never_mixed(trained, tmp_path):
    flags = (f"--workdir={trained}", "--separate", f"--out={tmp_path / 'faces'}")
    assert command("sample", *flags, "--count=3").returncode == 0
    before = [picture(file) for file in sorted((tmp_path / "faces").iterdir())]
    assert_one_line(command("sample", *flags, "--count=2", "--seed=1"), "seeds would be mixed")
    after = [picture(file) for file in sorted((tmp_path / "faces").iterdir())]
    np.testing.assert_array_equal(before, after)


def test_figures_that_cannot_be_kept_are_printed_all_the_same(trained, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    shutil.rmtree(run / "evaluations", ignore_errors=True)
    (run / "evaluations").write_text("in the way")
    result = command("evaluate", f"--workdir={run}")
    assert_one_line(result, "cannot be written")
    lines = result.stderr.splitlines()
    assert lines[0].startswith("the figures will be printed but not saved")
    assert any(line.startswith("elbo_bits_per_dim ") for line in lines)


def test_importance_samples_below_none_are_refused(trained):
    with pytest.raises(UserError, match="importance_samples=-1 must be a whole number from 0 on"):
        measure(vaejax.load(trained), importance_samples=-1)


def test_whoever_uses_a_model_is_told_of_flags_that_there_are(trained, tmp_path):
    """An unusable cache directory is reported by `--cache_dir`, the flag of these commands."""
    flags = (f"--workdir={tmp_path / 'run'}", f"--config.data.cache_dir={tmp_path / 'cache'}")
    assert command("main", CONFIG, *LEAST, *ONCE, *flags).returncode == 0
    shutil.rmtree(tmp_path / "cache")
    (tmp_path / "cache").write_text("in the way")
    for module, *more in (("evaluate",), ("fit", "--prior=gaussian")):
        result = command(module, flags[0], *more)
        assert_one_line(result, f"--cache_dir='{tmp_path / 'cache'}' cannot be")
        assert "config." not in result.stderr.splitlines()[-1]
        result = command(module, flags[0], *more, f"--cache_dir={tmp_path / 'other'}")
        assert result.returncode == 0, result.stderr


def test_a_prior_of_another_run_is_not_taken_for_this_ones(trained, tmp_path):
    """Both priors were fitted at the same step, so the step alone cannot tell the runs apart."""
    other = tmp_path / "other"
    result = command("main", CONFIG, f"--workdir={other}", "--config.train.seed=9")
    assert result.returncode == 0, result.stderr
    vaejax.load(other).sample(1, prior="gaussian")
    shutil.copy(trained / "priors" / "gaussian.npz", other / "priors" / "gaussian.npz")
    with pytest.raises(UserError, match=r"of another model.*run python -m vaejax\.fit"):
        vaejax.load(other).sample(1, prior="gaussian")


def test_the_tpu_compiler_does_not_complain_where_no_tpu_is(trained, tmp_path, monkeypatch):
    monkeypatch.delenv("JAX_PLATFORMS")
    result = command("sample", f"--workdir={trained}", f"--out={tmp_path / 'g.png'}")
    assert result.returncode == 0, result.stderr
    assert "TPU" not in result.stderr


def test_evaluate_writes_numbers_with_their_protocol(trained):
    """The results on two devices equal those that training logged on one device."""
    result = command("evaluate", f"--workdir={trained}", devices=2)
    assert result.returncode == 0, result.stderr
    report = json.loads((trained / "evaluations" / "valid_model_k4_00000012.json").read_text())
    results, protocol = report["results"], report["protocol"]
    assert results["pictures"] == 24
    assert results["importance_bits_per_dim"] <= results["elbo_bits_per_dim"]
    assert protocol["importance_samples"] == 4 and protocol["prior"] == "model"
    assert protocol["split"] == "valid" and protocol["crop"] == "none"
    assert protocol["checkpoint_step"] == 12
    at_the_end = [line for line in metrics(trained) if line["split"] == "valid"][-1]
    np.testing.assert_allclose(results["elbo_nats"], at_the_end["elbo_nats"], rtol=1e-5)
    fitted = command("evaluate", f"--workdir={trained}", "--prior=gaussian", "--split=test")
    assert fitted.returncode == 0, fitted.stderr
    report = json.loads((trained / "evaluations" / "test_gaussian_k4_00000012.json").read_text())
    assert report["results"]["pictures"] == 8 and report["protocol"]["prior"] == "gaussian"


def test_sampling_needs_no_data_and_survives_a_move(trained, tmp_path):
    moved = shutil.copytree(trained, tmp_path / "moved")
    np.testing.assert_array_equal(vaejax.load(moved).sample(2), vaejax.load(trained).sample(2))


def test_fit_adds_a_prior(trained):
    result = command("fit", f"--workdir={trained}", "--prior=mixture")
    assert result.returncode == 0, result.stderr
    assert vaejax.load(trained).sample(2, prior="mixture").shape == (2, 28, 28, 3)


def test_prepare_says_what_there_is(tmp_path):
    preview = tmp_path / "preview.png"
    result = command("prepare", CONFIG, f"--preview={preview}")
    assert result.returncode == 0, result.stderr
    assert "train: 64 pictures (28, 28, 3)" in result.stderr
    assert picture(preview).std() > 10


@pytest.mark.parametrize("module", ["main", "sample", "evaluate", "fit", "prepare"])
def test_help_is_there(module):
    result = command(module, "--help")
    assert result.returncode in (0, 1)  # absl chooses the exit status of --help
    assert "--workdir" in result.stdout or "--config" in result.stdout


def picture(path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)
