"""Package versions: saved in checkpoints, compared between processes, and pinned for runs."""

import configparser
import os
import shutil
import subprocess
import sys
from contextlib import closing

import jax
import numpy
import pytest
from commands import COMMAND_TIMEOUT, REPOSITORY, free_port, without_tensorflow
from packaging.requirements import Requirement
from packaging.version import Version
from states import assert_same, last_carry
from tiny import CONFIG_FILE
from toy import Adversaries, toy_config

import vaejax
from vaejax.records.checkpoints import Checkpoints
from vaejax.records.versions import ABSENT, versions
from vaejax.training.loop import Outcome, train
from vaejax.training.saved_state import to_items

CONSTRAINTS = REPOSITORY / "launch" / "constraints.txt"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Returns the work directory of a finished run of four steps."""
    workdir = tmp_path_factory.mktemp("finished")
    assert train(toy_config(steps=4), workdir, task=Adversaries()) is Outcome.FINISHED
    return workdir


def resume(finished, workdir, saved):
    """Copies the run to `workdir` and trains it for two more steps.

    Args:
      finished: work directory of the run.
      workdir: the copy.
      saved: the versions that its checkpoint is to have; None for a checkpoint without versions.
    """
    shutil.copytree(finished, workdir)
    with closing(Checkpoints(workdir / "checkpoints")) as checkpoints:
        meta = {**checkpoints.meta(4), "versions": saved}
        if saved is None:
            del meta["versions"]
        checkpoints.save(4, to_items(last_carry(workdir, Adversaries())), meta, None)
    assert train(toy_config(steps=6), workdir, task=Adversaries()) is Outcome.FINISHED


def test_the_versions_are_those_that_are_imported():
    found = versions()
    assert found["vaejax"] == vaejax.__version__
    assert found["python"] == ".".join(map(str, sys.version_info[:2]))
    assert (found["jax"], found["numpy"]) == (jax.__version__, numpy.__version__)
    assert ABSENT not in found.values()


def test_a_package_that_is_not_installed_is_absent(monkeypatch):
    monkeypatch.setattr("vaejax.records.versions.PACKAGES", ("vaejax-not-installed",))
    assert versions()["vaejax-not-installed"] == ABSENT


def test_a_checkpoint_has_the_versions_that_saved_it(finished):
    with closing(Checkpoints(finished / "checkpoints", read_only=True)) as checkpoints:
        assert checkpoints.meta(4)["versions"] == versions()


def test_a_resume_under_other_versions_names_them_and_trains(finished, tmp_path, capsys):
    resume(finished, tmp_path / "run", {**versions(), "optax": "0.0.1", "other": "1.2"})
    lines = capsys.readouterr().err.splitlines()
    (line,) = [line for line in lines if "other versions" in line]
    changes = f"(optax 0.0.1 -> {versions()['optax']}, other 1.2 -> {ABSENT})"
    assert changes in line and "bit for bit" in line


def test_a_resume_without_other_versions_names_none(finished, tmp_path, capsys):
    """The checkpoint has the versions of this process, or none."""
    resume(finished, tmp_path / "same", versions())
    resume(finished, tmp_path / "without", None)
    assert "versions" not in capsys.readouterr().err
    task = Adversaries()
    assert_same(last_carry(tmp_path / "same", task), last_carry(tmp_path / "without", task))


def start_with(directory, workdir, *flags):
    """Starts a run that searches `directory` first for installed packages."""
    path = os.pathsep.join([str(directory), without_tensorflow()["PYTHONPATH"]])
    return subprocess.Popen(
        [sys.executable, "-m", "vaejax.main", f"--config={CONFIG_FILE}", f"--workdir={workdir}",
         *flags],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip


def install(directory, name, version):
    """Writes the metadata of an installed package to `directory`, and returns `directory`."""
    info = directory / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    return directory


def test_a_process_with_another_version_stops_all(tmp_path):
    others = install(tmp_path / "others", "optax", "0.0.1")
    address = f"--coordinator=localhost:{free_port()}"
    processes = [
        start_with(place, tmp_path / "run", address, "--processes=2", f"--process={index}")
        for index, place in enumerate((tmp_path, others))
    ]
    for process in processes:
        _, stderr = process.communicate(timeout=COMMAND_TIMEOUT)
        assert process.returncode == 2, stderr
        assert f"process 1 has optax='0.0.1', process 0 has '{versions()['optax']}'" in stderr
        assert "pip install -c launch/constraints.txt" in stderr


def pinned(python):
    """Returns the pinned versions by name, for Linux x86-64 and a version of Python."""
    surroundings = {
        "python_version": python, "python_full_version": f"{python}.7", "sys_platform": "linux",
        "platform_machine": "x86_64", "platform_system": "Linux", "os_name": "posix",
        "implementation_name": "cpython", "platform_python_implementation": "CPython",
    }  # fmt: skip
    lines = [line for line in CONSTRAINTS.read_text().splitlines() if not line.startswith("#")]
    found = {}
    for line in map(Requirement, lines):
        if line.marker is None or line.marker.evaluate(surroundings):
            (one,) = line.specifier
            assert one.operator == "==" and line.url is None and line.name not in found
            found[line.name.lower().replace("_", "-").replace(".", "-")] = one.version
    return found


@pytest.mark.parametrize("python", ["3.11", "3.12"])
def test_every_version_that_is_recorded_is_pinned(python):
    found = pinned(python)
    tpu_and_cuda = {"libtpu", "jax-cuda13-plugin", "jax-cuda13-pjrt"}
    assert set(versions()) - {"vaejax", "python"} | tpu_and_cuda <= found.keys()
    assert found["jax"] == found["jaxlib"] == found["jax-cuda13-plugin"]
    assert (Version(found["jax"]) < Version("0.11")) == (python == "3.11"), (
        "JAX 0.11 requires Python 3.12"
    )


def test_the_requirements_of_setup_cfg_are_pinned_to_versions_that_they_allow():
    """Checks the requirements of the package and of its extras tfds, tpu and cuda.

    Only requirements with a marker, which may not apply, may be without a pin.
    """
    setup = configparser.ConfigParser()
    setup.read(REPOSITORY / "setup.cfg")
    texts = [setup["options"]["install_requires"]]
    texts += [setup["options.extras_require"][extra] for extra in ("tfds", "tpu", "cuda")]
    lines = [line for text in texts for line in text.splitlines() if line and line[0] != "#"]
    for python in ("3.11", "3.12"):
        found = pinned(python)
        for needed in map(Requirement, lines):
            name = needed.name.lower().replace("_", "-")
            assert name in found or needed.marker, f"{needed} is not pinned"
            assert name not in found or found[name] in needed.specifier, needed


def test_the_constraints_contain_no_url_path_or_option():
    """Checks for URLs, paths and options: each machine installs from its own package index."""
    lines = [line for line in CONSTRAINTS.read_text().splitlines() if line[0] != "#"]
    assert not [line for line in lines if "/" in line or line.startswith("-")]
    assert "index" not in CONSTRAINTS.read_text() and "://" not in CONSTRAINTS.read_text()
