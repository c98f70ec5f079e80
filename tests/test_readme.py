"""Every command of the README does what it says, on small data that looks like the real."""

import importlib.util
import pathlib
import re
import shlex
import shutil

import numpy as np
import pytest
from commands import command
from picture_trees import celeba_records, jpeg, write_celeba

REPOSITORY = pathlib.Path(__file__).parents[1]
README = (REPOSITORY / "README.md").read_text()
COMMANDS = [
    line.strip()
    for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
    if "python -m vaejax" in line
]
# The same run, made short: a README's command is not changed otherwise.
SHORT = [
    "--config.train.steps=4", "--config.train.eval_every=4", "--config.train.save_every=4",
    "--config.train.log_every=2", "--config.data.synthetic_counts=(80, 8, 8)",
    "--config.model.widths=(8, 8)", "--config.model.blocks=(1, 1)",
    "--config.eval.importance_samples=2", "--config.eval.grid=4",
]  # fmt: skip
# And of a flat z.
SMALL = ["--config.model.latent_size=4", "--config.prior.width=8", "--config.prior.layers=2"]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A directory with all that the README assumes its reader has."""
    directory = tmp_path_factory.mktemp("home")
    shutil.copytree(REPOSITORY / "configs", directory / "configs")
    (directory / "data").mkdir()
    write_celeba(directory / "data" / "celeba", celeba_records(90))
    (directory / "photos").mkdir()
    for i in range(40):
        (directory / "photos" / f"{i}.jpg").write_bytes(jpeg(i, 80 + i, 70))
    frey = np.random.default_rng(0).integers(0, 256, (480, 28, 20), np.uint8)
    np.savez(directory / "data" / "freyfaces.npz", images=frey)
    return directory


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_works(line, home):
    words = shlex.split(line.split("&&")[-1])
    assert words[:2] == ["python", "-m"], line
    module = words[2].removeprefix("vaejax.")
    if module == "aot" and not importlib.util.find_spec("libtpu"):
        pytest.skip("no TPU compiler: pip install -e '.[tpu]'")
    trains = module in ("main", "aot") and "--config.train.steps" not in line
    short = [*SHORT, *([] if "ladder" in line else SMALL)] if trains else []
    result = command(module, *words[3:], *short, cwd=home)
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr


def test_the_python_works(home, monkeypatch):
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


def test_every_place_the_readme_names_exists():
    for name in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (REPOSITORY / name).exists(), name
    for name in re.findall(r"configs/\w+\.py", README):
        assert (REPOSITORY / name).exists(), name
