"""Tests the commands as a user runs them, and the Python API on the run that they trained."""

import json
import os
import shutil

import numpy as np
import pytest
from commands import assert_one_line, command
from PIL import Image
from tiny import CONFIG_FILE, metrics

import vaejax
from vaejax.errors import UserError
from vaejax.evaluation.choosing import Choice
from vaejax.records import pictures
from vaejax.runtime.chips import without_tpu_complaints
from vaejax.trained import measuring
from vaejax.trained.loading import open_data
from vaejax.trained.prior_files import load_fitted, save_fitted

CONFIG = f"--config={CONFIG_FILE}"


@pytest.fixture(scope="module")
def model(trained):
    return vaejax.load(trained)


def read_picture(path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def test_the_trained_model_is_usable_from_python(model):
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


def test_a_run_ends_with_a_grid_of_new_faces(trained, model):
    """`tiny.py` sets grids of 4 x 4 pictures."""
    expected = pictures.grid(model.sample(16), columns=4)
    np.testing.assert_array_equal(read_picture(trained / "samples.png"), expected)


def test_a_moved_run_draws_the_same_faces(trained, model, tmp_path):
    moved = shutil.copytree(trained, tmp_path / "moved")
    np.testing.assert_array_equal(vaejax.load(moved).sample(2), model.sample(2))


def test_sample_writes_a_grid_into_the_directory_that_is_named(trained, tmp_path):
    result = command("sample", f"--workdir={trained}", "--count=9", f"--out={tmp_path}/new/dir/")
    assert result.returncode == 0, result.stderr
    # A cell is a face of 28 pixels, enlarged three times, and a gap of 2.
    shape = (*(3 * (84 + 2) + 2,) * 2, 3)
    assert read_picture(tmp_path / "new" / "dir" / "samples.png").shape == shape


@pytest.mark.parametrize(("name", "form"), [("faces.jpg", "JPEG"), ("faces.WEBP", "WEBP")])
def test_a_picture_is_saved_in_the_format_that_its_suffix_names(name, form, tmp_path):
    pictures.check_format(tmp_path / name, "--out")
    pictures.save(tmp_path / name, np.full((16, 16, 3), 9, np.uint8))
    with Image.open(tmp_path / name) as image:
        assert image.format == form


def test_sample_writes_separate_faces_and_never_mixes_those_of_two_seeds(trained, model, tmp_path):
    flags = (f"--workdir={trained}", "--separate", f"--out={tmp_path / 'faces'}")
    result = command(
        "sample", *flags, "--count=3", "--prior=gaussian", "--temperature=0.8", "--seed=5"
    )
    assert result.returncode == 0, result.stderr
    assert_one_line(command("sample", *flags, "--count=2", "--seed=1"), "seeds would be mixed")
    files = sorted((tmp_path / "faces").iterdir())
    assert [file.name for file in files] == ["000000.png", "000001.png", "000002.png"]
    expected = model.sample(3, prior="gaussian", temperature=0.8, seed=5)
    np.testing.assert_array_equal(np.stack([read_picture(file) for file in files]), expected)


# Metrics that need no network, and so few samples that they are drawn at once.
QUICK = Choice(("likelihood", "ms_ssim", "thumbnails", "spectrum"))
QUICK_NAME = "likelihood_ms_ssim_thumbnails_spectrum"


def test_evaluate_writes_figures_with_their_protocol(trained, model):
    """The figures on two devices equal those that training logged on one device."""
    measuring.measure(model, samples=20, choice=QUICK)
    path = trained / "evaluations" / f"valid_model_k4_{QUICK_NAME}_00000012.json"
    report = json.loads(path.read_text())
    results, protocol = report["results"], report["protocol"]
    assert results["pictures"] == 24
    assert results["importance_bits_per_dim"] <= results["elbo_bits_per_dim"]
    assert protocol["importance_samples"] == 4 and protocol["prior"] == "model"
    assert protocol["split"] == "valid" and protocol["crop"] == "none"
    assert protocol["checkpoint_step"] == 12
    at_the_end = [line for line in metrics(trained) if line["split"] == "valid"][-1]
    np.testing.assert_allclose(results["elbo_nats"], at_the_end["elbo_nats"], rtol=1e-5)


def test_evaluate_uses_the_flags_that_are_given(trained, tmp_path):
    flags = ("--prior=gaussian", "--split=test", "--pictures=7", "--importance_samples=2")
    page = tmp_path / "report.html"
    result = command(
        "evaluate",
        f"--workdir={trained}",
        *flags,
        f"--metrics={','.join(QUICK.metrics)}",
        "--samples=9",
        f"--report={page}",
    )
    assert result.returncode == 0, result.stderr
    path = trained / "evaluations" / f"test_7_gaussian_k2_{QUICK_NAME}_00000012.json"
    report = json.loads(path.read_text())
    assert report["results"]["pictures"] == 7 and report["protocol"]["prior"] == "gaussian"
    assert report["protocol"]["split"] == "test" and report["protocol"]["importance_samples"] == 2
    (figure,) = (one for one in report["figures"] if one["name"] == "thumbnail_frechet_samples")
    assert (figure["count"], figure["reference_count"]) == (9, 7) and figure["floor"] > 0
    with np.load(path.with_suffix(".npz")) as of_pictures:
        assert set(of_pictures) >= {"picture", "elbo_bits_per_dim", "psnr", "ms_ssim"}
        np.testing.assert_allclose(of_pictures["psnr"].mean(), report["results"]["psnr"])
    html = page.read_text(encoding="utf-8")
    assert "Fréchet distance (8x8 thumbnails)" in html and "Samples" in html


def test_figures_are_printed_even_if_they_cannot_be_saved(trained, tmp_path, capsys):
    run = shutil.copytree(trained, tmp_path / "run")
    shutil.rmtree(run / "evaluations", ignore_errors=True)
    (run / "evaluations").write_text("a file in place of the directory")
    with pytest.raises(UserError, match="cannot be written"):
        measuring.measure(vaejax.load(run), importance_samples=0, samples=0, choice=QUICK)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("the figures will be printed but not saved")
    assert any(line.startswith("elbo_bits_per_dim ") for line in lines)


def test_negative_importance_samples_are_refused(model):
    with pytest.raises(UserError, match="importance_samples=-1 must be a whole number from 0 on"):
        measuring.measure(model, importance_samples=-1)


def test_errors_of_a_run_s_cache_name_the_flag_of_the_commands(trained, tmp_path):
    """These commands have the flag `--cache_dir`, and not the settings of the run."""
    run = shutil.copytree(trained, tmp_path / "run")
    file = tmp_path / "file"
    file.write_text("a file in place of the directory")
    saved = json.loads((run / "config.json").read_text())
    saved["data"]["cache_dir"] = str(file)
    (run / "config.json").write_text(json.dumps(saved))
    with pytest.raises(UserError, match=rf"^--cache_dir='{file}' cannot be"):
        open_data(vaejax.load(run))
    open_data(vaejax.load(run), cache_dir=str(tmp_path / "other"))
    assert (tmp_path / "other").is_dir()


@pytest.mark.parametrize("words", [("evaluate",), ("fit", "--prior=gaussian")], ids=" ".join)
def test_commands_open_the_data_in_the_cache_that_is_given(words, trained, tmp_path):
    (tmp_path / "file").write_text("a file in place of the directory")
    flag = f"--cache_dir={tmp_path / 'file'}"
    result = command(words[0], f"--workdir={trained}", *words[1:], flag)
    assert_one_line(result, f"--cache_dir='{tmp_path / 'file'}' cannot be")
    assert "config." not in result.stderr.splitlines()[-1]


def test_a_fitted_prior_of_another_model_or_other_data_is_refused(trained, model, tmp_path):
    prior = model.fitted_prior("gaussian")
    origin = model.origin._replace(workdir=tmp_path)
    save_fitted(origin, "gaussian", prior, codes=64)
    np.testing.assert_array_equal(load_fitted(origin, "gaussian").mean, prior.mean)
    for other in (
        origin._replace(digest=origin.digest ^ 1),
        origin._replace(data_fingerprint={**origin.data_fingerprint, "name": "other"}),
    ):
        with pytest.raises(UserError, match=r"of another model.*run python -m vaejax\.fit"):
            load_fitted(other, "gaussian")
    with pytest.raises(UserError, match="to the codes of step 12, but this is step 8"):
        load_fitted(origin._replace(step=8), "gaussian")
    assert vaejax.load(trained, 8).digest != model.digest, "the digest is one of the parameters"


def test_the_tpu_compiler_prints_nothing_where_no_tpu_is_attached(trained, monkeypatch):
    """The command fails after it has looked for devices, and prints nothing but its own error."""
    monkeypatch.delenv("JAX_PLATFORMS")
    result = command("sample", f"--workdir={trained}", "--checkpoint=7")
    assert_one_line(result, "is not one of best, latest")
    assert result.stderr.count("\n") == 1


def test_the_variables_that_quieten_the_tpu_compiler_are_set_only_while_a_command_runs(monkeypatch):
    """JAX sets `TPU_SKIP_MDS_QUERY` where no TPU is attached."""
    for name in ("TPU_WORKER_HOSTNAMES", "TPU_ACCELERATOR_TYPE"):
        monkeypatch.delenv(name, raising=False)
    for attached, skip in ((True, "0"), (False, "1")):
        monkeypatch.setenv("TPU_SKIP_MDS_QUERY", skip)
        before = dict(os.environ)
        with without_tpu_complaints():
            assert ("TPU_WORKER_HOSTNAMES" in os.environ) != attached
        assert dict(os.environ) == before


def test_fit_adds_a_prior(trained):
    result = command("fit", f"--workdir={trained}", "--prior=mixture")
    assert result.returncode == 0, result.stderr
    assert vaejax.load(trained).sample(2, prior="mixture").shape == (2, 28, 28, 3)


def test_prepare_prints_the_splits_and_draws_a_preview(tmp_path):
    preview = tmp_path / "preview.png"
    result = command("prepare", CONFIG, f"--preview={preview}")
    assert result.returncode == 0, result.stderr
    assert "train: 64 pictures (28, 28, 3)" in result.stderr
    assert read_picture(preview).std() > 10


@pytest.mark.parametrize("module", ["main", "sample", "evaluate", "fit", "prepare"])
def test_help_lists_the_flags(module):
    result = command(module, "--help")
    assert result.returncode in (0, 1)  # absl chooses the exit status of --help
    assert "--workdir" in result.stdout or "--config" in result.stdout


MISTAKES = {
    "--metrics=fid": "metric 'fid' is unknown; known: likelihood, ms_ssim",
    "--features=inception": "--features=inception needs the network's file; name it with",
    "--inception=none.pth --features=inception": "none.pth",
    "--metrics=thumbnails --samples=2": "needs 3 pictures of each set, and there are 2 samples",
    "--samples=1": "samples=1 must be 0 or a whole number from 2 on",
    "--metrics=factors --samples=0 --pictures=2": "factor",
    "--report=/": "--report=/",
}


@pytest.mark.parametrize("flags", MISTAKES)
def test_a_mistaken_choice_of_metrics_is_one_line(trained, flags):
    metrics_named = () if "--metrics" in flags else ("--metrics=frechet",)
    result = command("evaluate", f"--workdir={trained}", *metrics_named, *flags.split())
    assert_one_line(result, MISTAKES[flags])
