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
def test_every_notation_of_a_tuple_of_words_is_accepted(written):
    assert flag(f"--config.prior.fitted={written}") == (
        "--config.prior.fitted=('gaussian', 'mixture')"
    )


@pytest.mark.parametrize(
    ("written", "parsed"),
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
def test_a_value_is_rewritten_as_python(written, parsed):
    assert flag(written) == parsed


def test_a_value_may_be_a_separate_argument():
    words = ["main", "--config.train.steps", "7", "--config", str(CONFIG_FILE)]
    # ml_collections requires the config file before its settings.
    assert config_flags_of(words) == [
        "main",
        f"--config={CONFIG_FILE}",
        "--config.train.steps=7",
    ]


def test_the_last_value_of_a_repeated_setting_counts():
    words = ["main", "--config.data.image_size=16,16", "--seed=1", "--config.data.image_size=28,28"]
    assert config_flags_of(words) == ["main", "--seed=1", "--config.data.image_size=(28, 28, )"]


@pytest.mark.parametrize("text", ["many", "1.5", "nan", "1e400", ""])
def test_the_error_names_a_setting_that_is_no_number(text):
    with pytest.raises(UserError, match=r"config\.train\.steps='.*' must be a whole number"):
        flag(f"--config.train.steps={text}")


@given(name=st.sampled_from(SETTINGS), text=st.text(max_size=20))
def test_any_text_for_any_setting_is_accepted_or_refused_in_one_line(name, text):
    try:
        parsed = flag(f"--config.{name}={text}")
    except UserError as error:
        assert f"config.{name}" in str(error)
        return
    kind = settings.setting_of(name).type
    if kind is str:
        assert parsed == f"--config.{name}={text}"
    elif typing.get_origin(kind) is tuple:
        value = eval(parsed.partition("=")[2], {"inf": float("inf"), "nan": float("nan")})
        assert isinstance(value, tuple)


@given(section=st.text(max_size=8), key=st.text(max_size=8))
def test_the_error_suggests_another_name_for_an_unknown_setting(section, key):
    name = f"{section}.{key}" if section else key
    if name in SETTINGS:
        return
    with pytest.raises(UserError) as error:
        settings.check_key(name)
    assert f"config.{name} is not a setting" in str(error.value)
    assert "did you mean config." in str(error.value) or "known: " in str(error.value)


def test_a_flag_for_another_class_resets_the_file_s_settings_of_the_first_class():
    config = default_config()
    config.prior.layers = 3
    config.prior.fitted = ("mixture",)
    config.prior.name = "standard_normal"
    reset_replaced(config, ["main", "--config=x.py", "--config.prior.name=standard_normal"])
    assert settings.resolve(config).prior == StandardNormalConfig(fitted=("mixture",))


def test_flags_may_come_from_a_file(tmp_path):
    file = tmp_path / "flags.txt"
    file.write_text(f"--config={CONFIG_FILE}\n--config.data.synthetic_counts=16,4,2\n")
    result = command("prepare", f"--flagfile={file}")
    assert result.returncode == 0, result.stderr
    assert "train: 16 pictures (28, 28, 3)" in result.stderr


def test_the_saved_settings_of_a_run_are_a_config_file(tmp_path):
    (tmp_path / "config.json").write_text(to_json(tiny(data={"synthetic_counts": (16, 4, 2)})))
    result = command("prepare", f"--config={tmp_path}")
    assert result.returncode == 0, result.stderr
    assert "train: 16 pictures (28, 28, 3)" in result.stderr
    file = f"--config={tmp_path / 'config.json'}"
    assert config_flags_of(["prepare", file]) == config_flags_of(
        ["prepare", f"--config={tmp_path}"]
    )


def test_a_config_must_be_a_config_dict():
    with pytest.raises(UserError, match="get_config returns a dict"):
        check_returned({})


def test_a_setting_of_another_class_than_the_named_one_is_refused():
    result = command(
        "main", f"--config={CONFIG_FILE}", "--config.prior.name=standard_normal",
        "--config.prior.layers=3", "--workdir=never",
    )  # fmt: skip
    assert result.returncode == 2
    assert result.stderr == (
        "error: config.prior.layers=3 is of config.prior.name=coupling_flow, and standard_normal "
        "has none; leave it out\n"
    )


# Name and content of a config file that cannot be used, and a part of the one-line error.
BROKEN_FILES = {
    "raises": ("x.py", "raise ValueError('two\\nlines')", "lines"),
    "ends the program": ("x.py", "import sys; sys.exit(0)", "the file ends the program"),
    "imports an unknown module": ("x.py", "import nothing_of_this_name", "nothing_of_this_name"),
    "is no Python": ("x.py", "def get_config(:", "SyntaxError"),
    "has no get_config": ("x.py", "x = 1", "get_config"),
    "reads an unknown setting": (
        "x.py",
        "from vaejax.config import default_config\n"
        "def get_config():\n    config = default_config()\n    config.ladder.latent = 4",
        "config.ladder is not a setting; did you mean config.model?",
    ),
    "returns nothing": (
        "x.py", "def get_config(): pass", "get_config returns nothing; end it with `return config`",
    ),
    "is empty JSON": ("config.json", "", "cannot be read as JSON"),
    "is a JSON list": ("config.json", "[]", "holds no settings; name a run's config.json"),
    "is truncated JSON": ("config.json", "{", "cannot be read as JSON"),
    "is JSON without sections": ("config.json", json.dumps({"data": 1}), "holds no settings"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN_FILES)
def test_a_config_file_that_cannot_be_used_is_one_line(name, tmp_path):
    file, content, message = BROKEN_FILES[name]
    (tmp_path / file).write_text(content + "\n")
    result = command("prepare", f"--config={tmp_path / file}")
    assert result.returncode == 2, result.stderr
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: --config: " if file == "x.py" else "error: --config=")
    assert message in line and "Traceback" not in line
