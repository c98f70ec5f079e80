"""Tests that any values of a command's flags end in success or in an error of one line."""

import os
import re
import shutil

import pytest
from commands import PACKAGE, command
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import CONFIG_FILE

pytestmark = pytest.mark.slow

# The flags of each command that are not drawn: those that it needs, and those for less to compute.
CONFIG, RUN = {"config": f"{CONFIG_FILE}:least"}, {"workdir": "run"}
NEEDED = {
    "main": {**CONFIG, **RUN},
    "prepare": CONFIG,
    "sample": RUN,
    "evaluate": {**RUN, "importance_samples": "0", "metrics": "thumbnails", "samples": "10"},
    "fit": {**RUN, "prior": "gaussian"},
    "explore": RUN,
    "aot": CONFIG,
}
DEFINED = re.compile(r'flags\.DEFINE_\w+\(\s*"(\w+)"|cli\.define_(?!config)(\w+)\(')
NAMES = {
    module: ["".join(names) for names in DEFINED.findall((PACKAGE / f"{module}.py").read_text())]
    for module in NEEDED
}
# Values of wrong types, missing values, typical mistakes, and paths in the directory `place`.
WRITTEN = (
    *("", " ", "0", "1", "2", "-1", "12", "1.5", "1e3", "1e400", "nan", "inf", "9" * 25, "0x10"),
    *("1,000", "1_000", "²", "true", "yes", "None", "a,b", ",", "(", "=", "--", "%s", "{x}"),
    *("é", "a\nb", "x" * 300, "best", "latest", "model", "gaussian", "valid", "test", "VALID"),
    *("30d", "all", "0d", "v5e:2x2", "v9:1", "localhost:0", "localhost:99999", ":1", "gs://x"),
    *("file", "file/x", "directory", "new.png", "new.gif", "new/dir/", "pipe", "loop", "run"),
    *("no_checkpoint", "no_json", "~nobody/x", "/dev/null", "/dev/null/x", "/proc/1/x"),
)
# Without the characters of paths that lead out of the test's directory.
TEXT = st.text(st.characters(exclude_characters="\0/.~", codec="utf-8"), max_size=12)
VALUES = st.sampled_from(WRITTEN) | TEXT


@pytest.fixture(scope="module")
def place(trained, tmp_path_factory):
    """Returns a directory that holds a run, and paths that are not runs."""
    place = tmp_path_factory.mktemp("place")
    shutil.copytree(trained, place / "run")
    (place / "file").write_text("x")
    (place / "directory").mkdir()
    (place / "loop").symlink_to("loop")
    os.mkfifo(place / "pipe")
    for name, content in (
        ("no_checkpoint", (place / "run" / "config.json").read_text()),
        ("no_json", "{"),
    ):
        (place / name).mkdir()
        (place / name / "config.json").write_text(content)
    return place


@pytest.mark.parametrize("module", NAMES)
@settings(max_examples=20, derandomize=True)
@given(data=st.data())
def test_any_flags_succeed_or_are_refused_in_one_line(module, place, data):
    flags = NEEDED[module] | data.draw(
        st.dictionaries(st.sampled_from(NAMES[module]), VALUES, min_size=1, max_size=3)
    )
    words = [f"--{name}={value}" for name, value in flags.items()]
    # Sometimes in another order and with an extra argument, sometimes as `--name value`.
    if data.draw(st.integers(0, 4)) == 0:
        words = data.draw(st.permutations(words)) + data.draw(st.lists(VALUES, max_size=1))
    if data.draw(st.integers(0, 4)) == 0:
        words = [part for word in words for part in word.split("=", 1)]
    result = command(module, *words, cwd=place)
    status, stderr = result.returncode, result.stderr
    errors = [line for line in stderr.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in stderr, words
    assert status in (0, 2), (words, stderr)
    assert len(errors) == (1 if status else 0), (words, stderr)
    assert not errors or stderr.rstrip("\n").endswith(errors[0]), (words, stderr)
