"""Rewrites `--config` and its settings on the command line into what ml_collections parses."""

import re
import typing
from pathlib import Path
from typing import Any

import ml_collections
from absl import flags

from vaejax.cli import saved_config
from vaejax.config.settings import KINDS, check_key, setting_of, without_meaning
from vaejax.errors import UserError


def config_flags_of(argv: list[str]) -> list[str]:
    """Returns the command line with `--config` and its settings as ml_collections parses them.

    A run's `config.json`, or its directory, can stand for the config file. Tuples may be written
    with or without brackets and quotes: `gaussian,mixture`, `28,28`, `(28, 28)`. A setting's value
    may be a separate argument. If a setting is given more than once, the last value counts.

    Args:
      argv: the program's name and its arguments.

    Raises:
      UserError: the config file does not exist, a setting is unknown (the message suggests the
        nearest one), or a value is not of the setting's type.
    """
    joined = _joined(argv)
    parsed = [joined[0], *map(_as_parsed, joined[1:])]
    names = [word.partition("=")[0] for word in parsed]
    # ml_collections would join the values of a repeated setting into one tuple.
    last = {name: i for i, name in enumerate(names)}
    kept = [
        word
        for i, word in enumerate(parsed)
        if not word.startswith("--config.") or last[names[i]] == i
    ]
    # ml_collections requires the file before its settings.
    return [kept[0], *sorted(kept[1:], key=lambda word: not word.startswith("--config="))]


def flag_error(error: flags.Error) -> str:
    """Returns absl's error as a message for users: the flag, its value, and the values it takes."""
    if (
        isinstance(error, flags.UnrecognizedFlagError)
        and error.flagname.startswith("config.")
        and "config" in flags.FLAGS
    ):
        return f"--{error.flagname} changes a setting of --config, which is missing"
    match = re.match(r"flag --([^=\n]+)=(.*?): ", str(error), re.DOTALL)
    if not match or match[1] not in flags.FLAGS:
        return str(error).removeprefix("ERROR:: ")
    name, value = match.groups()
    flag = flags.FLAGS[name]
    if flag.boolean:
        wanted = "true or false"
    elif isinstance(flag.parser, flags.EnumParser):
        wanted = f"one of {', '.join(flag.parser.enum_values)}"
    else:
        wanted = flag.parser.syntactic_help
    return f"--{name}={value} must be {wanted}"


def check_returned(config: Any) -> None:
    """Raises UserError if a config file's `get_config` did not return a ConfigDict."""
    if config is None:
        raise UserError("--config: get_config returns nothing; end it with `return config`")
    if not isinstance(config, ml_collections.ConfigDict):
        raise UserError(
            f"--config: get_config returns a {type(config).__name__}; return the ConfigDict that "
            "vaejax.config.default_config() made"
        )
    config.to_dict()


def reset_replaced(config: ml_collections.ConfigDict, argv: list[str]) -> None:
    """Resets settings of a config file that belong to a class which a flag replaces by another.

    With `--config.prior.name=standard_normal` the file's `prior.layers` has no meaning, and takes
    its default. The same setting as a flag is a mistake, which `settings.resolve` reports.

    Args:
      config: the settings of the file and the flags; changed in place.
      argv: the command line, as `config_flags_of` returns it.
    """
    words = [word.partition("=") for word in argv if word.startswith("--config.")]
    given = {name.removeprefix("--config."): value for name, _, value in words}
    for setting, value in given.items():
        section, _, key = setting.partition(".")
        for other in without_meaning(section, value) if key == "name" else ():
            if f"{section}.{other}" not in given and other in config[section]:
                config[section][other] = setting_of(f"{section}.{other}").default


def config_name(file: str) -> str:
    """Returns the name of a run with this config file.

    It is the stem of the file's name or, for the JSON of a run, the name of the run's directory.
    """
    config, _, saved = file.partition(":")
    return (
        Path(saved).absolute().parent.name if config == saved_config.__file__ else Path(config).stem
    )


def _joined(argv: list[str]) -> list[str]:
    """Joins `--config.section.key value` into one argument; other flags have their own parsers."""
    joined: list[str] = []
    for argument in argv:
        last = joined[-1] if joined else ""
        if re.fullmatch(r"--?config(\.[\w.]+)?", last) and not argument.startswith("--"):
            joined[-1] = f"{last}={argument}"
        else:
            joined.append(argument)
    return joined


def _as_parsed(argument: str) -> str:
    name, equals, value = argument.lstrip("-").partition("=")
    if not argument.startswith("-"):
        return argument
    if name == "config":
        return f"--config={_file(value)}"
    if not name.startswith("config."):
        return argument
    key = name.removeprefix("config.")
    check_key(key)
    return f"--{name}={_value(key, value)}" if equals else argument


def _file(value: str) -> str:
    if not value:
        raise UserError("--config has no value; name a file such as configs/quickstart.py")
    file = value.split(":")[0]
    path = Path(file).expanduser()
    if path.is_dir() and (path / "config.json").is_file():
        path = path / "config.json"
    if not path.is_file():
        raise UserError(f"--config={value} is no file; name one such as configs/quickstart.py")
    if path.suffix == ".json":
        # `saved_config` is a config file that takes the JSON's path as its argument.
        return f"{saved_config.__file__}:{path}"
    return str(path) + value[len(file) :]


def _value(key: str, text: str) -> str:
    """Returns a setting's value as Python source.

    Raises:
      UserError: the text is not a value of the setting's type.
    """
    kind: Any = setting_of(key).type
    if typing.get_origin(kind) is not tuple:
        return _word(key, text, kind)
    inner = typing.get_args(kind)[0]
    words = [word.strip().strip("'\"") for word in text.strip().strip("()[]").split(",")]
    words = [_word(key, word, inner) for word in words if word]
    return repr(tuple(words)) if inner is str else f"({''.join(word + ', ' for word in words)})"


def _word(key: str, text: str, kind: type) -> str:
    if kind is str:
        return text
    try:
        if kind is bool:
            return str(_BOOLEANS[text.lower()])
        number = float(text)
        if kind is float:
            return text
        # Digits are parsed as an integer: a float would round a large one.
        return str(int(text) if text.lstrip("+-").isdecimal() else _whole(number))
    except (KeyError, ValueError, OverflowError):
        raise UserError(f"config.{key}={text!r} must be {KINDS[kind]}") from None


def _whole(number: float) -> int:
    if not number.is_integer():
        raise ValueError(number)
    return int(number)


_BOOLEANS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
