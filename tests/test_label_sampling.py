"""Faces sampled given labels: by a trained model, and by the commands."""

import json
import re
import shutil

import jax
import numpy as np
import pytest
from commands import assert_one_line, command
from flows import train_flow
from parameters import away_from_start
from tiny import least, without

from vaejax.errors import UserError
from vaejax.models import build_model
from vaejax.priors import fit_gaussian, load_prior
from vaejax.stages.fitting import is_fitted
from vaejax.trained.model import TrainedModel
from vaejax.trained.prior_files import save_fitted


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Returns an untrained model with a flow prior of random parameters that knows two labels."""
    config = least()
    params = away_from_start(build_model(config), config)
    trained = TrainedModel(config, params, 1, tmp_path_factory.mktemp("run"), {}, 0)
    size = config.model.latent_size
    codes = np.random.default_rng(0).normal(size=(64, size))
    labels = {"right": codes[:, 0] > 0, "height": codes[:, 1]}
    flow = train_flow(codes, 0, latent_shape=(size,), labels=labels)
    random = np.random.default_rng(1)
    params = jax.tree.map(
        lambda leaf: leaf + 0.1 * random.normal(size=leaf.shape).astype(np.float32), flow.params
    )
    save_fitted(trained.origin, "flow_matching", flow.replace(params=params), 64)
    save_fitted(trained.origin, "gaussian", fit_gaussian([codes.astype(np.float32)]), 64)
    return trained


def test_a_trained_model_samples_given_labels(model):
    """With labels, the prior that has learned them need not be named."""
    given, weight = {"right": 1, "height": 0.5}, 3.0
    codes = model.sample_codes(13, seed=2, temperature=0.8, labels=given, guidance=weight)
    expected = model.fitted_prior("flow_matching").given(given, weight)
    drawn = jax.jit(expected.sample, static_argnums=1)(jax.random.key(2), 13, 0.8)
    np.testing.assert_allclose(codes, drawn, atol=1e-4)
    faces = model.sample(13, seed=2, temperature=0.8, labels=given, guidance=weight)
    assert np.abs(faces.astype(int) - model.decode(codes)).max() <= 1
    few = model.sample_codes(3, seed=2, temperature=0.8, labels=given, guidance=weight)
    np.testing.assert_allclose(few, codes[:3], atol=1e-4)
    free = model.sample_codes(13, seed=2, temperature=0.8, prior="flow_matching")
    assert np.abs(free - codes).max() > 0.01


def test_a_flow_with_other_labels_than_the_config_names_is_to_be_trained(model):
    """Otherwise `main` would go on without a word when a run's labels are changed."""
    known = model.config
    assert known.flow.labels == () and is_fitted(model, "gaussian")
    fitted = {}
    for labels in ((), ("right", "height"), ("right",)):
        model.config = without(known, "flow", labels=labels)
        fitted[labels] = is_fitted(model, "flow_matching")
    model.config = known
    assert fitted == {(): False, ("right", "height"): True, ("right",): False}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"labels": {"right": 1}, "prior": "gaussian"}, "labels=right: this prior has learned no"),
     ({"labels": {"right": 1}, "prior": "model"}, "labels=right: this prior has learned no"),
     ({"labels": {"wrong": 1}}, "has learned no label 'wrong'"),
     ({"labels": {"right": 2}}, "label right=2 must be 0 or 1"),
     ({"guidance": 2.0}, "guidance=2.0 is towards labels, and none are given"),
     ({"guidance": 2.0, "labels": {}}, "guidance=2.0 is towards labels, and none are given"),
     ({"guidance": float("nan"), "labels": {"right": 1}}, "guidance=nan must be a number from 0"),
     ({"guidance": -1.0, "labels": {"right": 1}}, "guidance=-1.0 must be a number from 0 to 100")],
)  # fmt: skip
def test_a_bad_argument_is_one_line(model, arguments, message):
    for draw in (model.sample, model.sample_codes):
        with pytest.raises(UserError, match=re.escape(message)) as raised:
            draw(2, **arguments)
        assert "\n" not in str(raised.value)


def test_labels_without_a_flow_prior_say_how_to_train_it(model, tmp_path):
    other = TrainedModel(model.config, model.params, 1, tmp_path, {}, 0)
    remedy = "--config.prior.fitted=flow_matching --config.flow.labels=right,height"
    with pytest.raises(UserError, match=f"no prior flow_matching was trained in .*; run.*{remedy}"):
        other.sample(2, labels={"right": 1, "height": 0.5})


@pytest.fixture(scope="module")
def labelled(trained, tmp_path_factory):
    """Returns a run with a flow prior that knows whether a face smiles, and its yaw."""
    run = shutil.copytree(trained, tmp_path_factory.mktemp("labelled") / "run")
    path = run / "config.json"
    config = json.loads(path.read_text())
    config["flow"] |= {"labels": ["smile", "yaw"], "width": 64}
    path.write_text(json.dumps(config))
    done = command("fit", f"--workdir={run}", "--prior=flow_matching")
    assert done.returncode == 0, done.stderr
    return run


@pytest.mark.slow
def test_the_command_samples_given_labels(labelled, tmp_path):
    prior, _ = load_prior(labelled / "priors" / "flow_matching.npz")
    smile, yaw = prior.labels
    # Mirror images among them, so that no side is preferred.
    assert (smile.name, yaw.name) == ("smile", "yaw") and yaw.center == pytest.approx(0, abs=1e-6)
    assert yaw.low == pytest.approx(-yaw.high) and 20 < yaw.high < 40
    pictures = {}
    for name, flags in {
        "free": ["--prior=flow_matching"],
        "given": ["--labels=smile=0.5,yaw=-20"],
        "again": ["--labels=yaw=-20,smile=0.5", "--guidance=1"],
        "guided": ["--labels=smile=0.5,yaw=-20", "--guidance=3"],
    }.items():
        out = tmp_path / f"{name}.png"
        done = command("sample", f"--workdir={labelled}", "--count=4", f"--out={out}", *flags)
        assert done.returncode == 0, done.stderr
        pictures[name] = out.read_bytes()
    assert pictures["given"] == pictures["again"]
    assert len(set(pictures.values())) == 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "message"),
    [(["--labels=smlie=1"], "no label 'smlie'; it has: smile, yaw; did you mean smile?"),
     (["--labels=yaw=90"], "label yaw=90.0 must be a number from -"),
     (["--labels=yaw=nan"], "label yaw=nan must be a number from -"),
     (["--labels=yaw=1", "--guidance=101"], "guidance=101.0 must be a number from 0 to 100"),
     (["--labels=yaw=1", "--prior=model"], "labels=yaw: this prior has learned no labels")],
)  # fmt: skip
def test_a_mistake_in_labels_is_one_line(labelled, flags, message):
    assert_one_line(command("sample", f"--workdir={labelled}", *flags), message)
