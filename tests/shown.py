"""Commands that the README and the pages of the documentation show, run on small data."""

import importlib.util
import pathlib
import re
import shlex
import shutil
import subprocess

import numpy as np
import pytest
from commands import command
from picture_trees import celeba_records, jpeg, write_celeba

REPOSITORY = pathlib.Path(__file__).parents[1]
DOCS = REPOSITORY / "docs"
# Files of the repository that are pages too.
INCLUDED = re.compile(r"^```{include} (\.\./\S+)\n```", re.MULTILINE)
PAGES = {
    path.stem: INCLUDED.sub(lambda found: (DOCS / found[1]).read_text(), path.read_text())
    for path in sorted(DOCS.glob("*.md"))
}
# The same run, made short: a command is not changed otherwise.
SHORT = [
    "--config.train.steps=4", "--config.train.eval_every=4", "--config.train.save_every=4",
    "--config.train.log_every=2", "--config.data.synthetic_counts=(80, 8, 8)",
    "--config.eval.importance_samples=2", "--config.eval.grid=4",
]  # fmt: skip
# Of a network of levels,
NARROW = ["--config.model.widths=(8, 8)", "--config.model.blocks=(1, 1)"]
# and of a flat z.
SMALL = ["--config.model.latent_size=4", "--config.prior.width=8", "--config.prior.layers=2"]


def blocks(page: str, language: str) -> list[str]:
    """The contents of a page's fenced blocks in a language."""
    return re.findall(rf"^ *```{language}\n(.*?)^ *```", page, re.DOTALL | re.MULTILINE)


def lines(page: str, language: str = "bash") -> list[str]:
    """The commands of a page's shell blocks, one a line whatever they are continued over."""
    whole = "\n".join(blocks(page, language)).replace("\\\n", " ")
    return [line.strip() for line in whole.splitlines() if line.strip()]


def commands(page: str) -> list[str]:
    """Those that start a command of the package."""
    return [line for line in lines(page) if "python -m vaejax" in line]


def words_of(line: str) -> tuple[str, list[str]]:
    """A command's module, without the package's name, and its flags."""
    words = shlex.split(line.split("&&")[-1])
    assert words[:2] == ["python", "-m"], line
    return words[2].removeprefix("vaejax."), words[3:]


def run_short(line: str, home: pathlib.Path) -> subprocess.CompletedProcess:
    """Runs a shown command in `home`, made short."""
    module, flags = words_of(line)
    if module == "aot" and not importlib.util.find_spec("libtpu"):
        pytest.skip("no TPU compiler: pip install -e '.[tpu]'")
    trains = module in ("main", "aot") and "--config.train.steps" not in line
    short = [*SHORT, *NARROW, *([] if "ladder" in line else SMALL)] if trains else []
    result = command(module, *flags, *short, cwd=home)
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr
    return result


def furnish(directory: pathlib.Path) -> pathlib.Path:
    """Fills a directory with all that a page assumes its reader has, and returns it."""
    shutil.copytree(REPOSITORY / "configs", directory / "configs")
    (directory / "data").mkdir()
    write_celeba(directory / "data" / "celeba", celeba_records(90))
    (directory / "photos").mkdir()
    for i in range(40):
        (directory / "photos" / f"{i}.jpg").write_bytes(jpeg(i, 80 + i, 70))
    frey = np.random.default_rng(0).integers(0, 256, (480, 28, 20), np.uint8)
    np.savez(directory / "data" / "freyfaces.npz", images=frey)
    return directory
