"""The flow prior as a stage of a run: trained, interrupted and resumed; by one process or two."""

import re
import shutil

import numpy as np
import pytest
from commands import COMMAND_TIMEOUT, command, free_port, start
from stops import stopped_at
from tiny import CONFIG_FILE, metrics

import vaejax
from vaejax.errors import TRY_AGAIN

pytestmark = pytest.mark.slow

FLAGS = (f"--config={CONFIG_FILE}", "--config.prior.fitted=('gaussian','flow_matching')")


def copied(trained, tmp_path):
    """Copies the trained run without its fitted priors, and returns the copy."""
    run = shutil.copytree(trained, tmp_path / "run")
    shutil.rmtree(run / "priors")
    return run


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
