"""Tests which errors a command prints as one line, and which keep their traceback."""

import errno
import os
import subprocess
import sys

import pytest

from vaejax.errors import (
    UserError,
    is_out_of_memory,
    is_out_of_reach,
    is_out_of_space,
    one_line,
)

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def raised(error: Exception, *, behind: Exception, explicit: bool) -> Exception:
    """Returns `error`, raised from `behind` if `explicit`, else while `behind` is handled."""
    try:
        try:
            raise behind
        except Exception as first:
            if explicit:
                raise error from first
            raise error  # noqa: B904
    except Exception as second:
        return second


@pytest.mark.parametrize("explicit", [True, False])
def test_a_full_disk_is_found_behind_other_errors(explicit):
    error = raised(ValueError("not saved"), behind=FULL, explicit=explicit)
    error = raised(KeyError("state"), behind=error, explicit=not explicit)
    assert is_out_of_space(error) and not is_out_of_reach(error)


@pytest.mark.parametrize("explicit", [True, False])
def test_too_little_memory_is_found_behind_other_errors(explicit):
    error = raised(ValueError("not read"), behind=MemoryError(), explicit=explicit)
    assert is_out_of_memory(error) and not is_out_of_memory(ValueError("not read"))
    assert one_line(error)[1] == 2


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EACCES])
def test_what_the_system_refuses_is_not_damaged(number):
    assert is_out_of_reach(OSError(number, os.strerror(number)))


def test_an_error_with_nothing_behind_it_is_no_full_disk():
    assert not is_out_of_space(ValueError("not saved"))
    assert not is_out_of_space(OSError(errno.EIO, os.strerror(errno.EIO)))
    assert is_out_of_reach(OSError(errno.EIO, os.strerror(errno.EIO)))


def test_a_bug_is_no_line():
    assert one_line(UserError("config.x=1: no")) == ("config.x=1: no", 2)
    assert one_line(ValueError("of the code")) is None


def run_command(body: str, *flags: str) -> subprocess.CompletedProcess:
    """Runs a process whose command executes the statement `body`."""
    script = f"import sys\nfrom vaejax import cli\ndef command():\n    {body}\ncli.run(command)\n"
    line = [sys.executable, "-c", script, *flags]
    return subprocess.run(line, capture_output=True, text=True, timeout=120)


def test_a_bug_in_a_command_keeps_its_traceback():
    ended = run_command("raise ValueError('of the code')")
    assert ended.returncode == 1
    assert "Traceback" in ended.stderr and "ValueError: of the code" in ended.stderr
    assert "error: --config" not in ended.stderr


def test_a_command_that_exits_is_not_called_a_config_file():
    ended = run_command("sys.exit(7)")
    assert (ended.returncode, ended.stderr) == (7, "")
