"""The entry point of every command: flags, one-line errors, and quiet libraries."""

import gc
import math
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn, TypeVar

from absl import app, flags, logging
from ml_collections import config_flags

from vaejax.cli.command_line import (
    check_returned,
    config_flags_of,
    flag_error,
    reset_replaced,
)
from vaejax.config.checks import check_given
from vaejax.config.settings import check_key, resolve
from vaejax.errors import UserError, one_line
from vaejax.files.paths import check_no_address, local_path
from vaejax.runtime.huge_pages import use_huge_pages
from vaejax.runtime.quiet import quiet_libraries
from vaejax.runtime.signals import interrupt_on_signal
from vaejax.runtime.streams import flush, open_closed_streams, print_error, report_error

Value = TypeVar("Value")

# --help then lists the flags defined here as those of the command that defines them.
flags.disclaim_key_flags()


def define_config() -> flags.FlagHolder:
    """Defines `--config`, a config file whose settings `--config.section.key` overrides."""
    # ml_collections opens the files of --flagfile here already.
    with _one_line_errors(everything=True):
        return config_flags.DEFINE_config_file("config", None, "The run's settings, a Python file.")


def require(name: str) -> None:
    """Raises UserError if the flag `name` is not given."""
    if not flags.FLAGS[name].present:
        raise UserError(f"--{name} is missing; see --help")


def run(
    command: Callable[..., int | None],
    required: Sequence[str] = (),
    *,
    takes_arguments: bool = False,
) -> None:
    """Parses the flags, runs `command`, and exits with the status it returns.

    A mistake in flags, config, data or work directory is printed as one line.

    Args:
      command: the body of the command; returns the exit status, None for 0.
      required: names of flags that must be given.
      takes_arguments: whether `command` takes a list of the arguments that are no flags.
    """

    def parse(argv: list[str]) -> list[str]:
        with _one_line_errors(everything=True), quiet_libraries():
            # Replaced, because ml_collections reads from sys.argv which settings are given.
            sys.argv = config_flags_of(flags.FLAGS.read_flags_from_files(argv))
            rest = flags.FLAGS(sys.argv)
            if len(rest) > 1 and not takes_arguments:
                raise UserError(f"{rest[1]!r} is not a flag; write --name=value")
            for name in required:
                require(name)
            if "config" in flags.FLAGS and flags.FLAGS["config"].present:
                # If a config file failed to load, its error is raised only on access.
                config = flags.FLAGS["config"].value
                check_returned(config)
                reset_replaced(config, sys.argv)
                check_given(resolve(config))
            _check_values()
            return rest

    def main(arguments: list[str]) -> int | None:
        logging.set_verbosity(logging.WARNING)
        with _one_line_errors(), quiet_libraries():
            interrupt_on_signal()
            # Imported only now: a mistake in the flags is reported before JAX is imported.
            from vaejax.runtime.chips import without_tpu_complaints
            from vaejax.runtime.program_cache import keep_compiled_programs

            keep_compiled_programs()
            # Tracing a program makes many short-lived objects, and each garbage collection would
            # scan all imported modules, which live to the end: a fifth of the tracing time.
            gc.freeze()
            gc.set_threshold(20_000)
            with without_tpu_complaints():
                return command(arguments[1:]) if takes_arguments else command()

    open_closed_streams()
    use_huge_pages()
    app.run(main, flags_parser=parse)


@contextmanager
def _one_line_errors(*, everything: bool = False) -> Iterator[None]:
    """Prints an error as one line and exits with its status.

    Args:
      everything: whether to catch every exception: config files and flag parsers may raise any.
    """
    try:
        yield
    except SystemExit:
        # absl exits after --help; in any other case a config file has called sys.exit.
        if everything and not any("help" in word for word in sys.argv[1:]):
            print_error("--config: the file ends the program (sys.exit); take that out")
            raise SystemExit(UserError.status) from None
        raise
    except KeyboardInterrupt as error:
        # Without the interpreter's shutdown, which would tear down what XLA still uses.
        _end(report_error(error))
    except Exception as error:
        line = one_line(error)
        if not line and isinstance(error, flags.Error) and "Traceback" not in str(error):
            line = flag_error(error), UserError.status
        if not line and everything:
            line = f"--config: {_last_line(error)}", UserError.status
        if not line:
            raise
        message, status = line
        print_error(message)
        if everything:
            raise SystemExit(status) from error
        # Without the interpreter's shutdown, where libraries would report unfinished work.
        _end(status)


def _last_line(error: Exception) -> str:
    """Returns a config file's error without the traceback that ml_collections puts into it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    last = f"{type(error).__name__}: {' '.join(lines)}"
    if len(lines) > 1 and any(line.startswith("Traceback") for line in lines):
        last = lines[-1]
    return _unknown_setting(last) or last


def _unknown_setting(line: str) -> str:
    """Returns the message for a config file that reads an unknown setting, else an empty text."""
    if match := re.fullmatch(r"""AttributeError: ["']+(\w+)["']+""", line):
        try:
            check_key(match[1])
        except UserError as error:
            return str(error)
    return ""


def _check_values() -> None:
    """Raises UserError if a flag's value is a URL, empty, missing, or not a finite number."""
    for name, value in flags.FLAGS.flag_values_dict().items():
        # `settings.resolve` checks settings, whether they come from flags or from a file.
        if name.startswith("config"):
            continue
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"--{name}={value} must be a finite number")
        if isinstance(value, str):
            check_no_address(f"--{name}", value)
            if value.startswith("--"):
                raise UserError(f"--{name} has no value; the next argument is {value}")
            # An unset shell variable would otherwise mean the default, or this directory.
            if not value and flags.FLAGS[name].present:
                raise UserError(f"--{name}= is empty; give it a value, or leave it out")


def _end(status: int) -> NoReturn:
    flush()
    os._exit(status)


def given(flag: flags.FlagHolder[Value | None]) -> Value:
    """Returns the value of a flag that has no default.

    Raises:
      UserError: the flag is not given.
    """
    if flag.value is None:
        raise UserError(f"--{flag.name} is missing; see --help")
    return flag.value


def existing_run(workdir: str, name: str = "--workdir=") -> Path:
    """Returns the work directory of an existing run as a path.

    Args:
      workdir: the directory.
      name: what the message writes before it.

    Raises:
      UserError: `workdir` is no local path, or holds no run.
    """
    path = local_path(name.rstrip("="), workdir)
    if not (path / "config.json").is_file():
        raise UserError(
            f"{name}{workdir} holds no run (no config.json); name the directory that "
            "`python -m vaejax.main` trained in"
        )
    return path
