"""A network of attributes in commands: training, several devices, evaluating a VAE with it."""

import json

import numpy as np
import pytest
from attribute_runs import attribute_flags, write_faces
from commands import REPOSITORY, assert_one_line, command
from tiny import CONFIG_FILE, LEAST, ONCE, metrics

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    return write_faces(tmp_path_factory.mktemp("celeba") / "faces")


@pytest.fixture(scope="module")
def network(faces):
    """Returns the work directory of a network, trained by the command."""
    workdir = faces.parent / "network"
    done = command("main", *attribute_flags(faces), f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    assert f"measure a VAE: python -m vaejax.evaluate --workdir=DIR --attributes={workdir}" in (
        done.stderr
    )
    assert not (workdir / "samples.png").exists() and not (workdir / "priors").exists()
    return workdir


@pytest.fixture(scope="module")
def vae(faces):
    """Returns the work directory of a VAE of the same faces."""
    workdir = faces.parent / "vae"
    data = ("source=celeba", f"path={faces}", f"cache_dir={faces.parent / 'cache'}")
    flags = (f"--config={CONFIG_FILE}", *LEAST, *ONCE, *(f"--config.data.{one}" for one in data))
    done = command("main", *flags, f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    return workdir


def test_two_devices_train_the_same(network, faces):
    twin = faces.parent / "twin"
    done = command("main", *attribute_flags(faces), f"--workdir={twin}", devices=2)
    assert done.returncode == 0, done.stderr
    for ours, theirs in zip(metrics(twin), metrics(network), strict=True):
        assert (ours["step"], ours["split"]) == (theirs["step"], theirs["split"])
        np.testing.assert_allclose(ours["loss"], theirs["loss"], rtol=1e-2)


def test_a_vae_is_measured_with_it(network, vae):
    flags = ("--metrics=attributes,frechet", "--features=attributes", "--samples=40")
    report = vae / "report.html"
    done = command("evaluate", f"--workdir={vae}", f"--attributes={network}", *flags,
                   f"--report={report}")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "attribute_gap_samples" in done.stderr
    assert "frechet_attributes_samples" in done.stderr
    (path,) = (vae / "evaluations").glob("*attributes*.json")
    evaluation = json.loads(path.read_text())
    chart = evaluation["curves"]["attributes"]
    assert len(chart["x"]) == 40 and {"real held-out faces", "samples"} <= chart["lines"].keys()
    networks = evaluation["protocol"]["extractors"]
    assert all("digest" in json.dumps(one) for one in networks.values())
    assert "Share of the pictures that the network takes to have" in report.read_text()


def test_commands_refuse_what_is_no_vae(network, vae, faces):
    for door in ("sample", "evaluate", "explore"):
        refused = command(door, f"--workdir={network}")
        assert_one_line(refused, "holds a network of attributes and no VAE")
    refused = command("fit", f"--workdir={network}", "--prior=gaussian")
    assert_one_line(refused, "holds a network of attributes and no VAE")
    assert_one_line(command("aot", *attribute_flags(faces)), "is no VAE")
    refused = command("evaluate", f"--workdir={vae}", f"--attributes={vae}")
    assert_one_line(refused, "holds a VAE and no network of attributes")
    refused = command("evaluate", f"--workdir={vae}", "--features=attributes", "--metrics=kid")
    assert_one_line(refused, "name its work directory with --attributes=DIR")


def test_data_without_attributes_is_one_line(tmp_path):
    flags = ("--config.data.source=synthetic", "--config.data.path=", f"--workdir={tmp_path}/run",
             "--config.data.synthetic_counts=8,8,0", "--config.data.image_size=32,32",
             f"--config.data.cache_dir={tmp_path}")  # fmt: skip
    refused = command("main", f"--config={REPOSITORY}/configs/celeba_attributes.py", *flags)
    assert_one_line(refused, "the data has no such label")
