"""The flow prior as a stage of a run: trained, interrupted and resumed; by one process or two."""

import dataclasses
import json
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from commands import COMMAND_TIMEOUT, assert_one_line, command, free_port, start
from stops import stopped_at, stopping_at
from tiny import CONFIG_FILE, metrics, without

import vaejax
from vaejax.config import Config, CouplingFlowConfig
from vaejax.errors import TRY_AGAIN, UserError
from vaejax.evaluation.choosing import Choice
from vaejax.priors import DiagonalGaussian
from vaejax.stages.fitting import fit
from vaejax.stages.flow_prior import flow_prior_stage
from vaejax.trained.loading import open_data
from vaejax.trained.measuring import measure
from vaejax.training.loop import Outcome

pytestmark = pytest.mark.slow

FLAGS = (f"--config={CONFIG_FILE}", "--config.prior.fitted=('gaussian','flow_matching')")


def copied(trained, tmp_path):
    """Copies the trained run without its fitted priors, and returns the copy."""
    run = shutil.copytree(trained, tmp_path / "run")
    shutil.rmtree(run / "priors")
    return run


def set_flow(run, **flow):
    """Changes settings of `config.flow` in the config of a run."""
    path = run / "config.json"
    config = json.loads(path.read_text())
    config["flow"].update(flow)
    path.write_text(json.dumps(config))


def prior_of(run):
    with np.load(run / "priors" / "flow_matching.npz", allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


@pytest.fixture(scope="module")
def fitted(trained, tmp_path_factory):
    """The trained run with a flow prior, fitted by one uninterrupted process."""
    run = copied(trained, tmp_path_factory.mktemp("fitted"))
    done = command("fit", f"--workdir={run}", "--prior=flow_matching")
    assert done.returncode == 0, done.stderr
    return run


def test_fit_trains_the_flow_as_a_run_of_its_own(fitted):
    (stage,) = (fitted / "stages").iterdir()
    assert [line["split"] for line in metrics(stage)] == ["train", "train", "valid"]
    losses = [line["loss"] for line in metrics(stage)]
    assert np.all(np.isfinite(losses)) and losses[1] < losses[0]
    assert (stage / "pictures" / "samples_00000200.png").is_file()
    model = vaejax.load(fitted)
    assert model.sample(2, prior="flow_matching").shape == (2, 28, 28, 3)
    # One code of each picture, and of its mirror image.
    names = {path.name.split("_")[1]: np.load(path) for path in stage.glob("codes_*.npy")}
    assert {name: codes.shape for name, codes in names.items()} == {
        "train": (64, 6), "mirrored": (64, 6), "valid": (24, 6)
    }  # fmt: skip
    images = open_data(model).splits["train"].images
    expected = model.sample_posterior(images[:10, :, ::-1])
    np.testing.assert_allclose(names["mirrored"][:10], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("source", "said"), [("synthetic", False), ("array", True)])
def test_labels_that_may_have_a_side_are_named(source, said, trained, tmp_path, capsys):
    """What is known of procedural faces is not known of other pictures."""
    model = vaejax.load(copied(trained, tmp_path))
    model.config = without(model.config, "flow", labels=("yaw", "smile"))
    data = open_data(model)
    fingerprint = {**data.fingerprint, "source": source}
    flow_prior_stage(model, dataclasses.replace(data, fingerprint=fingerprint))
    warned = "mirror images keep the labels yaw, smile; " in capsys.readouterr().err
    assert warned is said


@pytest.mark.parametrize("name", ["gaussian", "flow_matching"])
def test_samples_do_not_depend_on_the_batches(name, fitted, trained):
    """`tiny.py` sets batches of ten."""
    model = vaejax.load(fitted if name == "flow_matching" else trained)
    codes = model.sample_codes(23, prior=name, seed=3, temperature=0.8)
    at_once = jax.jit(model.fitted_prior(name).sample, static_argnums=1)
    np.testing.assert_allclose(codes, at_once(jax.random.key(3), 23, 0.8), rtol=1e-4, atol=1e-4)
    few = model.sample_codes(3, prior=name, seed=3, temperature=0.8)
    np.testing.assert_allclose(few, codes[:3], rtol=1e-4, atol=1e-4)
    faces = model.sample(23, prior=name, seed=3, temperature=0.8).astype(int)
    assert np.abs(faces - model.decode(codes)).max() <= 1


def test_a_stage_does_not_resume_with_other_settings(fitted, tmp_path):
    run = shutil.copytree(fitted, tmp_path / "run")
    set_flow(run, width=64, ema_decay=0.9)
    done = command("fit", f"--workdir={run}", "--prior=flow_matching")
    assert_one_line(
        done, "other settings of config.flow (width: 512 -> 64; ema_decay: 0.999 -> 0.9)"
    )
    assert np.all(prior_of(run)["header"] == prior_of(fitted)["header"])


def test_the_elbo_under_a_flow_is_estimated_and_named_so(fitted):
    model = vaejax.load(fitted)
    choice = Choice(("likelihood",))
    under_flow = measure(model, prior="flow_matching", samples=0, choice=choice)
    protocol = under_flow["protocol"]
    assert "Hutchinson" in protocol["prior_density"] and protocol["importance_samples"] == 0
    assert "importance_nats" not in under_flow["results"]
    own = measure(model, samples=0, choice=choice, importance_samples=0)
    assert "prior_density" not in own["protocol"]
    # The KL is that of one sample z of each picture, log q(z|x) - log p(z), and so is its change.
    faces = open_data(model).splits["valid"].images
    of_flow = jax.jit(model.fitted_prior("flow_matching").log_prob)
    of_own = jax.jit(lambda z: model.model.apply({"params": model.params}, z, method="log_prior"))
    gaps = []
    for seed in range(20):
        z = jnp.asarray(model.sample_posterior(faces, seed=seed))
        gaps.append(np.mean(of_own(z)) - np.mean(of_flow(z)))
    found = under_flow["results"]["kl_nats"] - own["results"]["kl_nats"]
    assert abs(found - np.mean(gaps)) < 5 * np.std(gaps)
    with pytest.raises(UserError, match="importance_samples=4: the density of prior 'flow_m"):
        measure(model, prior="flow_matching", importance_samples=4)


@pytest.fixture
def maps(monkeypatch):
    """Says of the tiny model, whose latents are 6 numbers, that they are a map 1 x 2 x 3."""
    monkeypatch.setattr(Config, "latent_shape", property(lambda self: (1, 2, 3)))
    # Its own prior takes no maps, and is not used.
    monkeypatch.setattr(CouplingFlowConfig, "check", lambda *of: None)


def test_a_stage_of_maps_resumes_to_the_same_prior(maps, trained, tmp_path):
    runs = [copied(trained, tmp_path / name) for name in ("one", "other")]
    for run in runs:
        set_flow(run, steps=20, width=16, head_size=8, blocks=1)
    for run in runs:
        model = vaejax.load(run)
        dataset = open_data(model)
        if run is runs[0]:
            with stopping_at(10):
                assert fit(model, ["flow_matching"], dataset) is Outcome.INTERRUPTED
            assert not (run / "priors").exists()
        assert fit(model, ["flow_matching"], dataset) is Outcome.FINISHED
        assert isinstance(model.fitted_prior("flow_matching").gaussian, DiagonalGaussian)
        assert model.sample(3, prior="flow_matching").shape == (3, 28, 28, 3)
    one, other = map(prior_of, runs)
    assert one.keys() == other.keys() and "gaussian/scale" in one
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name], err_msg=name)
    set_flow(runs[0], patch=1, blocks=2)
    with pytest.raises(UserError, match=r"other settings of config.flow \(blocks: 1 -> 2\)"):
        fit(vaejax.load(runs[0]), ["flow_matching"], dataset)


def test_an_interrupted_stage_resumes_to_the_same_prior(fitted, trained, tmp_path):
    run = copied(trained, tmp_path)
    stopped = stopped_at("first step done", "main", *FLAGS, f"--workdir={run}")
    assert stopped.returncode == TRY_AGAIN, stopped.stderr
    assert "run the same command to go on" in stopped.stderr
    done = command("main", *FLAGS, f"--workdir={run}")
    assert done.returncode == 0, done.stderr
    assert re.search(r"training from step [1-9]\d* to 200 in .*/stages/flow_matching_", done.stderr)
    assert "prior gaussian fitted" in done.stderr and "new faces" in done.stderr
    uninterrupted, interrupted = prior_of(fitted), prior_of(run)
    assert uninterrupted.keys() == interrupted.keys()
    for name, array in uninterrupted.items():
        np.testing.assert_array_equal(array, interrupted[name], err_msg=name)


def test_two_processes_train_a_stage_together(fitted, trained, tmp_path):
    run = copied(trained, tmp_path)
    group = (f"--coordinator=localhost:{free_port()}", "--processes=2")
    processes = [
        start("main", *FLAGS, f"--workdir={run}", *group, f"--process={index}",
              "--config.train.fsdp=2")
        for index in range(2)
    ]  # fmt: skip
    errors = [process.communicate(timeout=COMMAND_TIMEOUT)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    one, two = prior_of(fitted), prior_of(run)
    assert one.keys() == two.keys()
    for name in one.keys() - {"header"}:
        np.testing.assert_allclose(one[name], two[name], rtol=0.05, atol=0.005, err_msg=name)
