"""Package versions: saved in checkpoints, compared between processes, and pinned for runs."""

import configparser
import os
import pathlib
import shutil
import subprocess
import sys

import jax
import numpy
import pytest
from commands import COMMAND_TIMEOUT, free_port
from packaging.requirements import Requirement
from packaging.version import Version
from states import assert_same, final_state
from tiny import CONFIG_FILE, tiny

import vaejax
from vaejax.records.checkpoints import Checkpoints
from vaejax.records.versions import ABSENT, versions
from vaejax.training.loop import Outcome, train
from vaejax.training.saved_state import to_items
from vaejax.training.state import Carry

REPOSITORY = pathlib.Path(__file__).parents[1]
CONSTRAINTS = REPOSITORY / "launch" / "constraints.txt"


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """Returns the work directory of a finished run of four steps."""
    workdir = tmp_path_factory.mktemp("begun")
    assert train(tiny(train={"steps": 4}), workdir) is Outcome.FINISHED
    return workdir


def start_with(directory, workdir, *flags):
    """Starts a run that searches `directory` first for installed packages."""
    return subprocess.Popen(
        [sys.executable, "-m", "vaejax.main", f"--config={CONFIG_FILE}", f"--workdir={workdir}",
         "--config.prior.fitted=()", *flags],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": f"{directory}:{os.environ.get('PYTHONPATH', '')}"},
    )  # fmt: skip


def install(directory, name, version):
    """Writes the metadata of an installed package to `directory`, and returns `directory`."""
    info = directory / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    return directory


def test_the_versions_are_those_that_are_imported():
    found = versions()
    assert found["vaejax"] == vaejax.__version__
    assert found["python"] == ".".join(map(str, sys.version_info[:2]))
    assert (found["jax"], found["numpy"]) == (jax.__version__, numpy.__version__)
    assert ABSENT not in found.values()


def test_what_is_not_installed_is_called_so():
    code = (
        "import sys\nfrom vaejax.records.versions import versions\n"
        "sys.path = [path for path in sys.path if 'site-packages' not in path]\n"
        "print(versions()['optax'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == ABSENT, done.stderr


def test_a_checkpoint_keeps_its_versions(begun):
    checkpoints = Checkpoints(begun / "checkpoints", read_only=True)
    assert checkpoints.meta(4)["versions"] == versions()
    checkpoints.close()


@pytest.mark.slow
def test_a_resume_under_other_versions_says_so_and_goes_on(begun, tmp_path):
    workdir = shutil.copytree(begun, tmp_path / "run")
    others = install(tmp_path / "others", "optax", "0.0.1")
    run = start_with(others, workdir, "--config.train.steps=6")
    _, said = run.communicate(timeout=COMMAND_TIMEOUT)
    assert run.returncode == 0, said
    now = versions()["optax"]
    (line,) = [line for line in said.splitlines() if "other versions" in line]
    assert f"(optax {now} -> 0.0.1)" in line and "bit for bit" in line


def test_a_resume_under_the_same_versions_says_nothing(begun, tmp_path, capsys):
    workdir = shutil.copytree(begun, tmp_path / "run")
    assert train(tiny(train={"steps": 6}), workdir) is Outcome.FINISHED
    assert "versions" not in capsys.readouterr().err


def test_a_checkpoint_without_versions_still_loads(begun, tmp_path, capsys):
    workdir, config = shutil.copytree(begun, tmp_path / "run"), tiny(train={"steps": 4})
    checkpoints = Checkpoints(workdir / "checkpoints")
    meta, (state, _, window) = checkpoints.meta(4), final_state(workdir, config)
    del meta["versions"]
    checkpoints.save(4, to_items(Carry(state, window)), meta, None)
    checkpoints.close()
    assert train(tiny(train={"steps": 6}), workdir) is Outcome.FINISHED
    assert "versions" not in capsys.readouterr().err
    other = shutil.copytree(begun, tmp_path / "other")
    train(tiny(train={"steps": 6}), other)
    assert_same(final_state(workdir, config), final_state(other, config))


def test_a_process_with_another_version_stops_all(tmp_path):
    others = install(tmp_path / "others", "optax", "0.0.1")
    address = f"--coordinator=localhost:{free_port()}"
    members = [
        start_with(place, tmp_path / "run", address, "--processes=2", f"--process={index}")
        for index, place in enumerate((tmp_path, others))
    ]
    for member in members:
        _, said = member.communicate(timeout=COMMAND_TIMEOUT)
        assert member.returncode == 2, said
        assert f"process 1 has optax='0.0.1', process 0 has '{versions()['optax']}'" in said
        assert "pip install -c launch/constraints.txt" in said


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


def test_what_setup_cfg_asks_for_is_pinned_and_allowed():
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


def test_the_constraints_name_no_place():
    """Checks for URLs, paths and options: each machine installs from its own package index."""
    lines = [line for line in CONSTRAINTS.read_text().splitlines() if line[0] != "#"]
    assert not [line for line in lines if "/" in line or line.startswith("-")]
    assert "index" not in CONSTRAINTS.read_text() and "://" not in CONSTRAINTS.read_text()
