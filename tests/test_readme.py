"""Commands and Python code of the README run without errors, on small stand-in data."""

import re

import numpy as np
import pytest
from commands import REPOSITORY
from shown import commands, furnish, run_short

pytestmark = pytest.mark.slow

README = (REPOSITORY / "README.md").read_text()


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Returns a directory with the configs and data that the README's commands read."""
    return furnish(tmp_path_factory.mktemp("home"))


@pytest.mark.parametrize("line", commands(README))
def test_every_command_works(line, home):
    run_short(line, home)


def test_the_python_code_works(home, monkeypatch):
    (source,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    monkeypatch.chdir(home)
    names: dict = {}
    exec(source, names)
    assert names["faces"].shape == (16, 64, 64, 3)
    np.testing.assert_array_equal(names["again"], names["model"].reconstruct(names["faces"]))
    assert np.all(np.isfinite(names["nats"]))


def test_the_readme_names_both_commands():
    assert "pip install -e . && python -m vaejax.main --config=configs/quickstart.py" in README
    assert "pip install -e '.[test]' && pytest" in README
    assert "pytest" in (REPOSITORY / ".ci" / "run").read_text()


def test_every_path_that_the_readme_names_exists():
    for name in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (REPOSITORY / name).exists(), name
    for name in re.findall(r"configs/\w+\.py", README):
        assert (REPOSITORY / name).exists(), name
