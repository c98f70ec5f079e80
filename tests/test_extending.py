"""The additions of docs/extending.md, applied to a copy of the package, work."""

import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest
from commands import COMMAND_TIMEOUT, REPOSITORY, without_tensorflow
from shown import PAGES, SHORT, blocks, commands

pytestmark = pytest.mark.slow

PAGE = PAGES["extending"]
# A block of the page that is a whole file: its caption, which is the path, and the code.
TITLED = re.compile(
    r"^```{code-block} python\n:caption: (\S+)\n\n(.*?)^```", re.DOTALL | re.MULTILINE
)


@pytest.fixture(scope="module")
def extended(tmp_path_factory) -> pathlib.Path:
    """Returns a copy of the package with all files and edits of docs/extending.md."""
    directory = tmp_path_factory.mktemp("extended")
    shutil.copytree(
        REPOSITORY / "vaejax", directory / "vaejax", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copytree(REPOSITORY / "configs", directory / "configs")
    for name, code in TITLED.findall(PAGE):
        assert not (directory / name).exists(), name
        (directory / name).write_text(code)
    for edit in blocks(PAGE, "diff"):
        apply_edit(directory, edit)
    return directory


def run_extended(directory: pathlib.Path, *words: str) -> str:
    """Runs Python with the changed copy in place of the package, and returns its stderr."""
    environment = {**os.environ, **without_tensorflow()}
    path = [str(directory), str(pathlib.Path(__file__).parent), environment["PYTHONPATH"]]
    done = subprocess.run(
        [sys.executable, *words],
        cwd=directory,
        env={**environment, "PYTHONPATH": os.pathsep.join(path)},
        capture_output=True,
        text=True,
        timeout=COMMAND_TIMEOUT,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_the_likelihood_and_the_prior_of_the_page_are_distributions(extended):
    run_extended(extended, "-m", "extended")


def test_a_run_trains_with_everything_that_the_page_adds(extended):
    (extended / "arrays").mkdir()
    for i in range(40):
        picture = np.random.default_rng(i).integers(0, 256, (60 + i, 50, 3), np.uint8)
        np.save(extended / "arrays" / f"{i}.npy", picture)
    (line,) = commands(PAGE)
    stderr = run_extended(extended, *shlex.split(line)[1:], *SHORT)
    assert "validation: " in stderr
    assert (extended / "runs/extended/samples.png").is_file()


def test_the_files_of_the_page_pass_the_linter(extended):
    files = [name for name, _ in TITLED.findall(PAGE)]
    assert len(files) == 4
    for action in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *action, "--config", REPOSITORY / "pyproject.toml",
             *files],
            cwd=extended, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout


def apply_edit(root: pathlib.Path, edit: str) -> None:
    """Replaces an edit's ` ` and `-` lines, which must occur once, by its ` ` and `+` lines."""
    first, *rest = edit.splitlines()
    path = root / first.removeprefix("--- ")
    old, new = ("".join(f"{line[1:]}\n" for line in rest if line[0] in marks)
                for marks in (" -", " +"))  # fmt: skip
    text = path.read_text()
    assert text.count(old) == 1, f"{path.relative_to(root)} must contain once:\n{old}"
    path.write_text(text.replace(old, new))
