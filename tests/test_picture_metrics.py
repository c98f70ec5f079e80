"""Metrics of generated pictures during training: `eval.metrics` and `eval.best_by`."""

import os
import pathlib
import re
import signal
from unittest import mock

import numpy as np
import pytest
from commands import assert_one_line, command
from test_pods import run_pod
from tiny import CONFIG_FILE, LEAST, least, metrics

import vaejax
from vaejax.config import Config
from vaejax.data import open_dataset
from vaejax.errors import UserError
from vaejax.evaluation.choosing import OF_FEATURES, Choice, thumbnails
from vaejax.evaluation.figures import is_higher_better
from vaejax.evaluation.metrics.faces import faces
from vaejax.evaluation.metrics.spectrum import spectrum
from vaejax.runtime.mesh import make_mesh
from vaejax.tasks.vae import vae_task
from vaejax.tasks.vae.generating import Generator
from vaejax.trained.measuring import measure
from vaejax.training.loop import Outcome, train

NAMES = ("ms_ssim", "thumbnails", "spectrum")
MEASURED = {"metrics": NAMES, "metrics_every": 2, "samples": 20, "best_by": "ssim"}
FIGURE = "thumbnail_frechet_samples"
FLAGS = tuple(f"--config.eval.{name}={value}" for name, value in MEASURED.items())


def config(**changes) -> Config:
    """Returns the config of a run of four validations, at two of which pictures are measured."""
    return least(train={"eval_every": 3}, eval={**MEASURED, **changes})


def validations(workdir: pathlib.Path) -> list[dict]:
    return [line for line in metrics(workdir) if line["split"] == "valid"]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> pathlib.Path:
    workdir = tmp_path_factory.mktemp("measured")
    assert train(config(), workdir) is Outcome.FINISHED
    return workdir


@pytest.mark.slow
def test_pictures_are_measured_at_every_second_validation_and_the_best_is_kept(run):
    lines = validations(run)
    assert [line["step"] for line in lines if FIGURE in line] == [6, 12]
    assert all("psnr" in line for line in lines) and len(lines) == 4
    best = max(lines, key=lambda line: line["ssim"])
    assert vaejax.load(run).step == best["step"]


@pytest.mark.slow
def test_the_figures_are_those_of_evaluate(run):
    trained = vaejax.load(run, checkpoint="latest")
    evaluation = measure(trained, samples=20, importance_samples=0, choice=Choice(NAMES))
    (line,) = (line for line in validations(run) if line["step"] == trained.step)
    # Those of reconstructions are of other faces: validations reconstruct no more than samples.
    for name in (FIGURE, "missing_detail_samples", "spectrum_distance_samples"):
        np.testing.assert_allclose(line[name], evaluation["results"][name], rtol=1e-3)
    assert line["ms_ssim"] == pytest.approx(evaluation["results"]["ms_ssim"], abs=0.05)


@pytest.mark.slow
def test_a_stop_while_pictures_are_measured_changes_nothing(run, tmp_path):
    samples, sent = Generator.samples, []

    def stopping(*arguments, **options):
        if not sent:
            sent.append(True)
            os.kill(os.getpid(), signal.SIGTERM)
        return samples(*arguments, **options)

    with mock.patch.object(Generator, "samples", stopping):
        assert train(config(), tmp_path) is Outcome.INTERRUPTED
        assert [line["step"] for line in validations(tmp_path)] == [3]
        assert train(config(), tmp_path) is Outcome.FINISHED
    assert metrics(tmp_path) == metrics(run)


@pytest.mark.slow
def test_two_processes_measure_the_same(run, tmp_path):
    flags = ("--config.train.eval_every=3", *FLAGS)
    errors = run_pod(tmp_path / "pod", *flags, processes=2, devices=2)
    assert FIGURE in errors[0] and FIGURE not in errors[1]
    for line, twin in zip(validations(run), validations(tmp_path / "pod"), strict=True):
        assert line.keys() == twin.keys()
        for name, value in line.items():
            if name != "split":
                np.testing.assert_allclose(twin[name], value, rtol=2e-2, atol=1e-3, err_msg=name)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metrics": ("fid",)}, "config.eval.metrics='fid' cannot be measured during training"),
        ({"best_by": "sharpness"}, "config.eval.best_by='sharpness' is none of the metrics"),
        ({"best_by": "missing_detail_samples"}, "that have a best value: elbo_bits_per_dim, psnr"),
        ({"metrics": ("manifold",), "samples": 5, "features": "vgg", "weights": "none.pth"},
         "none.pth"),
    ],
)  # fmt: skip
def test_what_cannot_be_measured_is_one_line_before_training(changes, message):
    settings = config(**changes)
    dataset, mesh = open_dataset(settings.data), make_mesh(2)
    with pytest.raises(UserError, match=re.escape(message)):
        vae_task(settings).picture_metrics(dataset, mesh)


def test_settings_that_do_not_go_together_are_one_line(tmp_path):
    flags = (f"--config={CONFIG_FILE}", f"--workdir={tmp_path / 'run'}", *LEAST)
    for given, message in {
        "--config.eval.features=inception": "config.eval.features='inception' needs the network",
        "--config.eval.weights=a.pth": "config.eval.weights='a.pth' is not read",
    }.items():
        assert_one_line(command("main", *flags, given), message)
    wanted = ("--config.data.synthetic_counts=64,0,0", "--config.eval.metrics=spectrum")
    assert_one_line(command("main", *flags, *wanted), "there are none; hold some out")
    assert not (tmp_path / "run" / "checkpoints").exists() or not list(
        (tmp_path / "run" / "checkpoints").iterdir()
    )


def test_which_values_are_better_is_known_from_the_names_alone():
    """A checkpoint is ranked where the metric's network is not installed."""
    made = [make(name, thumbnails, name) for name, make in OF_FEATURES.items()]
    made += [faces("faces", thumbnails), spectrum("spectrum", 28, 28)]
    directions = {name: better for metric in made for name, better in metric.better.items()}
    directions |= {"psnr": "higher", "ssim": "higher", "ms_ssim": "higher"}
    directions |= {"perceptual_distance": "lower", "lpips": "lower", "elbo_bits_per_dim": "lower"}
    assert {name for name, better in directions.items() if better == "higher"} == {
        name for name in directions if is_higher_better(name)
    }
