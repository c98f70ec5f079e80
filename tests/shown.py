"""Extracts commands from the README and the documentation pages, and runs them on small data."""

import importlib.util
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from commands import REPOSITORY, command
from picture_trees import celeba_records, jpeg, write_celeba

DOCS = REPOSITORY / "docs"
# A directive by which a page includes a file of the repository, such as CONTRIBUTING.md.
INCLUDED = re.compile(r"^```{include} (\.\./\S+)\n```", re.MULTILINE)
PAGES = {
    path.stem: INCLUDED.sub(lambda found: (DOCS / found[1]).read_text(), path.read_text())
    for path in sorted(DOCS.glob("*.md"))
}
# Flags that shorten a training run. Only these and the next lists are added to a command.
SHORT = [
    "--config.train.steps=4", "--config.train.eval_every=4", "--config.train.save_every=4",
    "--config.train.log_every=2", "--config.data.synthetic_counts=(80, 8, 8)",
    "--config.eval.importance_samples=2", "--config.eval.grid=4",
]  # fmt: skip
# Flags that shorten the finish of a decoder.
FINISH = [
    "--config.finish.steps=2", "--config.finish.validations=1", "--config.finish.batch_size=8",
    "--config.finish.widths=(4, 8)", "--config.finish.prior=gaussian",
]  # fmt: skip
# Flags for two narrow levels; every model has these settings.
NARROW = ["--config.model.widths=(8, 8)", "--config.model.blocks=(1, 1)"]
# Flags for a small latent vector z and its prior; a ladder has neither.
SMALL = ["--config.model.latent_size=4", "--config.prior.width=8", "--config.prior.layers=2"]


def blocks(page: str, language: str) -> list[str]:
    """Returns the contents of a page's fenced code blocks in a language."""
    return re.findall(rf"^ *```{language}\n(.*?)^ *```", page, re.DOTALL | re.MULTILINE)


def lines(page: str, language: str = "bash") -> list[str]:
    """Returns the non-empty lines of a page's code blocks, with continuation lines joined."""
    code = "\n".join(blocks(page, language)).replace("\\\n", " ")
    return [line.strip() for line in code.splitlines() if line.strip()]


def commands(page: str) -> list[str]:
    """Returns the lines of a page's shell blocks that run a command of the package."""
    return [line for line in lines(page) if "python -m vaejax" in line]


def words_of(line: str) -> tuple[str, list[str]]:
    """Splits a command into its module, without the package's name, and its flags."""
    words = shlex.split(line.split("&&")[-1])
    assert words[:2] == ["python", "-m"], line
    return words[2].removeprefix("vaejax."), words[3:]


def run_short(line: str, home: Path) -> subprocess.CompletedProcess:
    """Runs a command of the documentation in `home`; training and evaluation are shortened.

    Skips the test if the command needs the TPU compiler and that is not installed.
    """
    module, flags = words_of(line)
    if module == "aot" and not importlib.util.find_spec("libtpu"):
        pytest.skip("no TPU compiler: pip install -e '.[tpu]'")
    trains = module in ("main", "aot") and "--config.train.steps" not in line
    short = [*SHORT, *NARROW, *([] if "ladder" in line else SMALL)] if trains else []
    if trains and ("sharp" in line or "finish" in line):
        short += FINISH
    if module == "evaluate" and "--samples" not in line:
        short = ["--samples=40", "--metrics=likelihood,thumbnails,spectrum"]
    result = command(module, *flags, *short, cwd=home)
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr
    return result


def furnish(directory: Path) -> Path:
    """Fills a directory with the configs and data that the pages assume, and returns it."""
    shutil.copytree(REPOSITORY / "configs", directory / "configs")
    (directory / "data").mkdir()
    write_celeba(directory / "data" / "celeba", celeba_records(90))
    (directory / "photos").mkdir()
    for i in range(40):
        (directory / "photos" / f"{i}.jpg").write_bytes(jpeg(i, 80 + i, 70))
    frey = np.random.default_rng(0).integers(0, 256, (480, 28, 20), np.uint8)
    np.savez(directory / "data" / "freyfaces.npz", images=frey)
    return directory
