"""Command-line parsing: settings in the notations that users write, and one-line errors."""

import json
import typing

import pytest
from commands import command
from hypothesis import given
from hypothesis import strategies as st
from tiny import CONFIG_FILE, tiny

from vaejax.cli.command_line import check_returned, config_flags_of, reset_replaced
from vaejax.config import StandardNormalConfig, default_config, settings
from vaejax.config.saved import to_json
from vaejax.errors import UserError

SETTINGS = sorted(settings.names())


def flag(text: str) -> str:
    return config_flags_of(["main", text])[1]


@pytest.mark.parametrize(
    "written",
    ["gaussian,mixture", "('gaussian','mixture')", "gaussian, mixture", "['gaussian', 'mixture']"],
)
def test_a_tuple_of_words_is_taken_in_every_form(written):
    assert flag(f"--config.prior.fitted={written}") == (
        "--config.prior.fitted=('gaussian', 'mixture')"
    )


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("--config.prior.fitted=", "--config.prior.fitted=()"),
        ("--config.prior.fitted=()", "--config.prior.fitted=()"),
        ("--config.prior.fitted=mixture", "--config.prior.fitted=('mixture',)"),
        ("--config.data.image_size=28,28", "--config.data.image_size=(28, 28, )"),
        ("--config.train.steps=1e4", "--config.train.steps=10000"),
        ("--config.train.seed=4294967295", "--config.train.seed=4294967295"),
        ("--config.data.flip=no", "--config.data.flip=False"),
        ("--config.data.path=a,b", "--config.data.path=a,b"),
        ("--workdir=a,b", "--workdir=a,b"),
    ],
)
def test_a_value_is_taken_as_it_was_meant(written, read):
    assert flag(written) == read


def test_a_value_may_be_a_word_of_its_own():
    words = ["main", "--config.train.steps", "7", "--config", str(CONFIG_FILE)]
    # ml_collections requires the config file before its settings.
    assert config_flags_of(words) == [
        "main",
        f"--config={CONFIG_FILE}",
        "--config.train.steps=7",
    ]


def test_of_a_setting_that_is_given_twice_the_last_value_counts():
    words = ["main", "--config.data.image_size=16,16", "--seed=1", "--config.data.image_size=28,28"]
    assert config_flags_of(words) == ["main", "--seed=1", "--config.data.image_size=(28, 28, )"]


@pytest.mark.parametrize("text", ["many", "1.5", "nan", "1e400", ""])
def test_a_number_that_is_none_is_named(text):
    with pytest.raises(UserError, match=r"config\.train\.steps='.*' must be a whole number"):
        flag(f"--config.train.steps={text}")


@given(name=st.sampled_from(SETTINGS), text=st.text(max_size=20))
def test_any_text_for_any_setting_is_taken_or_refused_in_one_line(name, text):
    try:
        read = flag(f"--config.{name}={text}")
    except UserError as error:
        assert f"config.{name}" in str(error)
        return
    kind = settings.setting_of(name).type
    if kind is str:
        assert read == f"--config.{name}={text}"
    elif typing.get_origin(kind) is tuple:
        value = eval(read.partition("=")[2], {"inf": float("inf"), "nan": float("nan")})
        assert isinstance(value, tuple)


@given(section=st.text(max_size=8), key=st.text(max_size=8))
def test_an_unknown_setting_is_named_with_another(section, key):
    name = f"{section}.{key}" if section else key
    if name in SETTINGS:
        return
    with pytest.raises(UserError) as error:
        settings.check_key(name)
    assert f"config.{name} is not a setting" in str(error.value)
    assert "did you mean config." in str(error.value) or "known: " in str(error.value)


def test_a_flag_that_names_another_class_leaves_behind_what_the_file_says_of_the_first():
    config = default_config()
    config.prior.layers = 3
    config.prior.fitted = ("mixture",)
    config.prior.name = "standard_normal"
    reset_replaced(config, ["main", "--config=x.py", "--config.prior.name=standard_normal"])
    assert settings.resolve(config).prior == StandardNormalConfig(fitted=("mixture",))


def test_a_flag_for_another_class_than_the_named_one_is_refused():
    result = command(
        "main", f"--config={CONFIG_FILE}", "--config.prior.name=standard_normal",
        "--config.prior.layers=3", "--workdir=never",
    )  # fmt: skip
    assert result.returncode == 2
    assert result.stderr == (
        "error: config.prior.layers=3 is of config.prior.name=coupling_flow, and standard_normal "
        "has none; leave it out\n"
    )


def test_flags_may_come_from_a_file(tmp_path):
    file = tmp_path / "flags.txt"
    file.write_text(f"--config={CONFIG_FILE}\n--config.data.synthetic_counts=16,4,2\n")
    result = command("prepare", f"--flagfile={file}")
    assert result.returncode == 0, result.stderr
    assert "train: 16 pictures (28, 28, 3)" in result.stderr


def test_a_config_that_is_not_returned_is_said_to_be(tmp_path):
    file = tmp_path / "forgetful.py"
    file.write_text(
        "from vaejax.config import default_config\ndef get_config():\n    default_config()\n"
    )
    result = command("prepare", f"--config={file}")
    assert result.returncode == 2
    assert result.stderr.strip() == (
        "error: --config: get_config returns nothing; end it with `return config`"
    )
    with pytest.raises(UserError, match="get_config returns a dict"):
        check_returned({})


def test_a_runs_own_settings_are_a_config_file(tmp_path):
    (tmp_path / "config.json").write_text(to_json(tiny()))
    for form in (tmp_path / "config.json", tmp_path):
        result = command("prepare", f"--config={form}", "--config.data.synthetic_counts=16,4,2")
        assert result.returncode == 0, result.stderr
        assert "train: 16 pictures (28, 28, 3)" in result.stderr


@pytest.mark.parametrize("text", ["", "[]", "{", json.dumps({"data": 1})])
def test_json_that_holds_no_settings_is_refused_in_one_line(text, tmp_path):
    (tmp_path / "config.json").write_text(text)
    result = command("prepare", f"--config={tmp_path / 'config.json'}")
    assert result.returncode == 2
    assert result.stderr.startswith(f"error: --config={tmp_path / 'config.json'}")
    assert result.stderr.count("\n") == 1


CONFIG_FILES = {
    "raises": ("raise ValueError('two\\nlines')", "lines"),
    "ends the program": ("import sys; sys.exit(0)", "the file ends the program"),
    "needs what is not there": ("import nothing_of_this_name", "nothing_of_this_name"),
    "is no Python": ("def get_config(:", "SyntaxError"),
    "has no get_config": ("x = 1", "get_config"),
    "reads what is no setting": (
        "from vaejax.config import default_config\n"
        "def get_config():\n    config = default_config()\n    config.ladder.latent = 4",
        "config.ladder is not a setting; did you mean config.model?",
    ),
}


@pytest.mark.parametrize("name", CONFIG_FILES)
def test_a_config_file_that_cannot_be_loaded_is_one_line(name, tmp_path):
    content, said = CONFIG_FILES[name]
    file = tmp_path / "broken.py"
    file.write_text(content + "\n")
    result = command("prepare", f"--config={file}")
    assert result.returncode == 2, result.stderr
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: --config: ") and said in line
    assert "Traceback" not in line
