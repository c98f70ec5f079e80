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


def raised(error: Exception, *, cause: Exception, explicit: bool) -> Exception:
    """Returns `error`, raised from `cause` if `explicit`, else while `cause` is handled."""
    try:
        try:
            raise cause
        except Exception as first:
            if explicit:
                raise error from first
            raise error  # noqa: B904
    except Exception as second:
        return second


@pytest.mark.parametrize("explicit", [True, False])
def test_a_full_disk_is_recognised_as_the_cause_of_other_errors(explicit):
    error = raised(ValueError("not saved"), cause=FULL, explicit=explicit)
    error = raised(KeyError("state"), cause=error, explicit=not explicit)
    assert is_out_of_space(error) and not is_out_of_reach(error)


@pytest.mark.parametrize("explicit", [True, False])
def test_a_memory_error_is_recognised_as_the_cause_of_other_errors(explicit):
    error = raised(ValueError("not read"), cause=MemoryError(), explicit=explicit)
    assert is_out_of_memory(error) and not is_out_of_memory(ValueError("not read"))
    assert one_line(error)[1] == 2


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EACCES])
def test_limits_and_permissions_of_the_system_count_as_out_of_reach(number):
    assert is_out_of_reach(OSError(number, os.strerror(number)))


def test_other_errors_are_no_full_disk():
    assert not is_out_of_space(ValueError("not saved"))
    assert not is_out_of_reach(FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)))
    assert not is_out_of_space(OSError(errno.EIO, os.strerror(errno.EIO)))
    assert is_out_of_reach(OSError(errno.EIO, os.strerror(errno.EIO)))


def test_only_a_user_error_becomes_one_line():
    assert one_line(UserError("config.x=1: no")) == ("config.x=1: no", 2)
    assert one_line(ValueError("of the code")) is None


def run_command(body: str, *flags: str) -> subprocess.CompletedProcess:
    """Runs a process whose command executes the statement `body`."""
    script = f"import sys\nfrom vaejax import cli\ndef command():\n    {body}\ncli.run(command)\n"
    line = [sys.executable, "-c", script, *flags]
    return subprocess.run(line, capture_output=True, text=True, timeout=120)


def test_a_bug_in_a_command_keeps_its_traceback():
    result = run_command("raise ValueError('of the code')")
    assert result.returncode == 1
    assert "Traceback" in result.stderr and "ValueError: of the code" in result.stderr
    assert "error: --config" not in result.stderr


def test_a_command_may_exit_with_its_own_status():
    result = run_command("sys.exit(7)")
    assert (result.returncode, result.stderr) == (7, "")
