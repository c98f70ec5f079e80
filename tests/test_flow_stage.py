"""The flow prior as a stage of a run: trained, interrupted and resumed; by one process or two."""

import shutil
import signal

import numpy as np
import pytest
from commands import COMMAND_TIMEOUT, command, free_port, start
from tiny import CONFIG_FILE, metrics

import vaejax

pytestmark = pytest.mark.slow

WANTED = "--config.prior.fitted=('gaussian','flow_matching')"


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
    assert all(np.isfinite(line["loss"]) for line in metrics(stage))
    assert (stage / "pictures" / "samples_00000200.png").is_file()
    model = vaejax.load(fitted)
    assert model.sample(2, prior="flow_matching").shape == (2, 28, 28, 3)


def test_stopped_it_goes_on_to_the_same_prior(fitted, trained, tmp_path):
    run = copied(trained, tmp_path)
    flags = (f"--config={CONFIG_FILE}", f"--workdir={run}", WANTED)
    process = start("main", *flags)
    assert any("first step done" in line for line in process.stderr)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=COMMAND_TIMEOUT)
    assert process.returncode == 75, err
    assert "run the same command to go on" in err
    done = command("main", *flags)
    assert done.returncode == 0, done.stderr
    assert "prior gaussian fitted" in done.stderr and "new faces" in done.stderr
    whole, torn = prior_of(fitted), prior_of(run)
    assert whole.keys() == torn.keys()
    for name, array in whole.items():
        np.testing.assert_array_equal(array, torn[name], err_msg=name)


def test_processes_train_it_together(fitted, trained, tmp_path):
    run = copied(trained, tmp_path)
    meeting = (f"--coordinator=localhost:{free_port()}", "--processes=2")
    members = [
        start("main", f"--config={CONFIG_FILE}", f"--workdir={run}", WANTED, *meeting,
              f"--process={index}", "--config.train.fsdp=2")
        for index in range(2)
    ]  # fmt: skip
    said = [member.communicate(timeout=COMMAND_TIMEOUT)[1] for member in members]
    assert [member.returncode for member in members] == [0, 0], said
    alone, together = prior_of(fitted), prior_of(run)
    for name in alone.keys() - {"header"}:
        np.testing.assert_allclose(alone[name], together[name], rtol=0.05, atol=0.005, err_msg=name)
