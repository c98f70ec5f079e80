"""Commands and code of the documentation pages work, on small stand-in data."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from commands import COMMAND_TIMEOUT, REPOSITORY, command
from shown import PAGES, blocks, commands, furnish, lines, run_short, words_of

pytestmark = pytest.mark.slow

# For each page with Python code, the commands of that page that must run before the code.
PYTHON = {
    "first_faces": [],
    "reading_a_run": [],
    "numbers": ["evaluate"],
}


def commands_of(kind: str) -> list:
    """Returns test parameters for all commands of the pages that begin with `kind`, each once."""
    # The commands of `extending` need the package that it extends: test_extending.py runs them.
    found = {line: page for page, text in PAGES.items() if page != "extending"
             for line in lines(text)}  # fmt: skip
    return [pytest.param(line, id=f"{page}: {line[:60]}") for line, page in found.items()
            if line.split("&&")[-1].strip().startswith(kind)]  # fmt: skip


def mistakes() -> list:
    """Returns test parameters for all commands that a page shows with their error line."""
    shown = [(page, *pair) for page, text in PAGES.items()
             for block in blocks(text, "console")
             for pair in re.findall(r"^\$ (.*)\n(error: .*)$", block, re.MULTILINE)]  # fmt: skip
    return [pytest.param(line, error, id=f"{page}: {error[7:60]}") for page, line, error in shown]


COMMANDS = commands_of("python -m vaejax") + commands_of("python -m benchmarks")
MISTAKES = mistakes()
LAUNCHES = commands_of("launch/")


def test_the_pages_show_commands_mistakes_and_launches():
    """The tests of these have a parameter for each: without any, they would pass."""
    assert len(COMMANDS) > 25 and len(MISTAKES) > 10 and len(LAUNCHES) >= 4


@pytest.mark.parametrize("line", COMMANDS)
def test_the_parsers_accept_every_command(line):
    module, flags = words_of(line)
    name = module if module.startswith("benchmarks.") else f"vaejax.{module}"
    result = command("parsed", name, *flags, cwd=REPOSITORY)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("line", LAUNCHES)
def test_the_scripts_accept_every_launch(line):
    words = shlex.split(line)
    if "--dry_run" not in words:
        words.insert(1, "--dry_run")
    done = subprocess.run(
        words, cwd=REPOSITORY, capture_output=True, text=True, timeout=COMMAND_TIMEOUT
    )
    assert done.returncode == 0, done.stderr
    assert "vaejax.main" in done.stdout or "gcloud" in done.stdout


def test_no_other_command_is_shown_in_a_shell_block():
    """Fails for a new kind of command, which no test would check."""
    known = ("python -m vaejax", "python -m benchmarks", "python -m sphinx", "launch/", "pytest",
             "pip install ", "ruff ")  # fmt: skip
    for page, text in PAGES.items():
        for line in lines(text):
            assert line.startswith(known), f"{page}: {line}"


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A reader's working directory, after the first command of the page `first_faces`."""
    directory = furnish(tmp_path_factory.mktemp("home"))
    (directory / "empty").mkdir()
    run_short(commands(PAGES["first_faces"])[0], directory)
    return directory


@pytest.mark.parametrize(("line", "error"), MISTAKES)
def test_every_mistake_ends_with_the_line_that_is_shown(line, error, home):
    module, flags = words_of(line)
    result = command(module, *flags, cwd=home)
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1] == error


def test_the_page_for_newcomers_draws_faces_after_its_first_command(home):
    """Its evaluation is that of the page `numbers`, whose commands run as well."""
    for line in commands(PAGES["first_faces"]):
        if words_of(line)[0] == "sample":
            run_short(line, home)
    assert (home / "more.png").is_file() and len(list((home / "faces").iterdir())) == 5


def test_the_page_on_choices_draws_faces_with_given_labels(home):
    for line in commands(PAGES["choosing"]):
        if "labels=" in line:
            run_short(line, home)
    assert (home / "smiling.png").is_file()


@pytest.mark.parametrize("page", PYTHON)
def test_the_python_of_the_pages_works(page, home, monkeypatch):
    for line in commands(PAGES[page]):
        if words_of(line)[0] in PYTHON[page]:
            run_short(line, home)
    monkeypatch.chdir(home)
    # All blocks share their variables, as in one session of a reader.
    names: dict = {}
    for block in blocks(PAGES[page], "python"):
        exec(block, names)


def test_every_page_with_python_is_run():
    assert {page for page, text in PAGES.items() if blocks(text, "python")} == PYTHON.keys()
