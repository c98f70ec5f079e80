"""Runs that version 0.1 trained still load, sample, evaluate and resume."""

import json
import pathlib
import shutil
import zipfile

import numpy as np
import pytest
from commands import command
from tiny import metrics

import vaejax
from vaejax.errors import UserError
from vaejax.evaluation.choosing import Choice
from vaejax.trained.measuring import measure

pytestmark = pytest.mark.slow

STORED = pathlib.Path(__file__).parent / "fixtures" / "runs_0_1.zip"
# Rounding differs between machines and compilers.
CLOSE = {"rtol": 2e-3, "atol": 2e-3}


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    directory = tmp_path_factory.mktemp("old")
    with zipfile.ZipFile(STORED) as archive:
        archive.extractall(directory)
    return directory


@pytest.fixture(scope="module", params=["conv", "ladder"])
def model(stored, request):
    """Returns a model that version 0.1 trained."""
    return vaejax.load(stored / request.param, checkpoint=8)


def expected(model):
    """Returns the directory of the results that version 0.1 recorded for a model."""
    return model.workdir.parent / "expected" / model.workdir.name


def test_an_old_run_loads_and_samples_as_it_did(stored, model):
    recorded = np.load(expected(model) / "samples.npz")
    faces = model.sample(8, seed=3).astype(int)
    # Rounding differs, and may change a few values by one or two grey levels.
    assert np.abs(faces - recorded["samples"]).max() <= 2
    images = np.load(stored / "pictures.npz")["images"][:8]
    np.testing.assert_allclose(model.log_likelihood(images, samples=4), recorded["nats"], rtol=2e-4)


def test_an_old_run_is_evaluated_as_it_was(stored, model):
    # A ladder draws the 2,500 samples of version 0.1 in a minute.
    sets = () if model.config.model.has_groups else ("samples", "reconstructions")
    choice = Choice(("likelihood", "thumbnails"))
    evaluation = measure(
        model,
        data_path=str(stored / "pictures.npz"),
        choice=choice,
        samples=None if sets else 0,
    )
    floors = {figure["name"]: figure["floor"] for figure in evaluation["figures"]}
    found = evaluation["results"]
    recorded = json.loads((expected(model) / "evaluation.json").read_text())["results"]
    for name in ("elbo_bits_per_dim", "importance_bits_per_dim", "kl_nats", "psnr", "ssim"):
        np.testing.assert_allclose(found[name], recorded[name], **CLOSE, err_msg=name)
    for name in sets:
        name = f"thumbnail_frechet_{name}"
        np.testing.assert_allclose(found[name], recorded[name], rtol=2e-3, err_msg=name)
    if sets:
        floor = floors["thumbnail_frechet_samples"]
        np.testing.assert_allclose(floor, recorded["thumbnail_frechet_train_pictures"], rtol=2e-3)


def test_an_old_run_resumes_as_it_would_have(stored, model, tmp_path):
    run = shutil.copytree(model.workdir, tmp_path / "run")
    result = command(
        "main",
        f"--config={run / 'config.json'}",
        f"--config.data.path={stored / 'pictures.npz'}",
        f"--workdir={run}",
    )
    assert result.returncode == 0, result.stderr
    assert "training from step 8 to 12" in result.stderr
    for now, then in zip(metrics(run), metrics(expected(model)), strict=True):
        assert (now["step"], now["split"]) == (then["step"], then["split"])
        np.testing.assert_allclose(now["elbo_bits_per_dim"], then["elbo_bits_per_dim"], **CLOSE)
    assert (run / "samples.png").is_file()


def test_a_prior_of_version_0_1_must_be_fitted_again(stored):
    """Its file does not say whose codes it was fitted to."""
    model = vaejax.load(stored / "conv", checkpoint=8)
    with pytest.raises(UserError, match=r"or by version 0\.1.*run python -m vaejax\.fit"):
        model.sample(1, prior="gaussian")
