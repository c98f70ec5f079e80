"""The cache of compiled programs: damaged programs are replaced, and it is optional."""

import os
import pathlib
import subprocess
import sys

import pytest

COMPILE = """
import sys
import jax
from vaejax.runtime import program_cache

program_cache.keep_compiled_programs()
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
print(jax.config.jax_compilation_cache_max_size == program_cache.PROGRAMS_BYTES)
for name in sys.argv[1:]:
    def function(x):
        return x * 3 + 1
    function.__name__ = name
    print(jax.jit(function)(2.0))
"""


def compile_in_process(cache_home: pathlib.Path, *names: str, before: str = "") -> str:
    """Runs `COMPILE` in a new process with the default compilation cache; returns its stdout.

    Args:
      cache_home: the directory of the user's caches.
      *names: names of the functions to compile.
      before: code to run first.
    """
    environment = {name: os.environ[name] for name in os.environ if "COMPILATION_CACHE" not in name}
    result = subprocess.run(
        [sys.executable, "-c", before + COMPILE, *names],
        env={**environment, "XDG_CACHE_HOME": str(cache_home)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stderr == ""
    return result.stdout


def programs(cache_home: pathlib.Path, name: str = "*") -> list[pathlib.Path]:
    return list((cache_home / "vaejax" / "xla").glob(f"jit_{name}-*-cache"))


def record_of_use(program: pathlib.Path) -> pathlib.Path:
    return program.with_name(program.name.replace("-cache", "-atime"))


DAMAGES = {
    "truncated": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "junk": lambda content: b"junk" * 100,
    "overwritten": lambda content: content[:100] + b"\xff" * 50 + content[150:],
    # Its process was killed while it wrote: there is no record of use either.
    "unfinished": lambda content: content[:50],
}


@pytest.fixture(scope="module")
def compiled_again(tmp_path_factory) -> tuple[pathlib.Path, dict[str, bytes], str]:
    """Compiles a function for each damage in one process, damages it, and compiles it in another.

    Returns:
      The directory of the user's caches, the damaged contents by name, and the last stdout.
    """
    cache_home = tmp_path_factory.mktemp("caches")
    assert compile_in_process(cache_home, *DAMAGES) == "True\n" + "7.0\n" * len(DAMAGES)
    damaged = {}
    for name, damage in DAMAGES.items():
        (program,) = programs(cache_home, name)
        damaged[name] = damage(program.read_bytes())
        program.write_bytes(damaged[name])
    record_of_use(*programs(cache_home, "unfinished")).unlink()
    return cache_home, damaged, compile_in_process(cache_home, *DAMAGES)


def test_programs_are_computed_without_a_message_though_all_are_damaged(compiled_again):
    assert compiled_again[2] == "True\n" + "7.0\n" * len(DAMAGES)


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_program_is_replaced(compiled_again, name):
    cache_home, damaged, _ = compiled_again
    (program,) = programs(cache_home, name)
    assert len(program.read_bytes()) > 100 and program.read_bytes() != damaged[name]
    assert record_of_use(program).exists()


def test_where_no_directory_can_be_locked_programs_are_kept_without_a_limit(tmp_path):
    refuse = """
import filelock
def refuse(*arguments, **options):
    raise NotImplementedError("no locks here")
filelock.FileLock.acquire = refuse
"""
    assert compile_in_process(tmp_path, "function", before=refuse) == "False\n7.0\n"
    assert programs(tmp_path, "function")


def test_programs_are_computed_where_their_directory_cannot_be_made(tmp_path):
    (tmp_path / "vaejax").mkdir()
    (tmp_path / "vaejax" / "xla").write_text("a file")
    assert compile_in_process(tmp_path, "function") == "False\n7.0\n"


COMPILE_TWICE = """
import os, pathlib, sys
import jax, jax.numpy as jnp
from vaejax.runtime.program_cache import keep_compiled_programs

def compiled():
    jax.clear_caches()
    print(jax.jit(jnp.sin)(1.0))
    (program,) = pathlib.Path(sys.argv[1]).glob("jit_sin-*-cache")
    return program

keep_compiled_programs()
program = compiled()
os.truncate(program, 100)
assert compiled() == program and program.stat().st_size > 100, "it was not replaced"
"""


def test_a_truncated_program_in_a_directory_of_the_user_is_replaced(tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    line = [sys.executable, "-c", COMPILE_TWICE, str(tmp_path)]
    result = subprocess.run(line, capture_output=True, text=True)
    assert result.returncode == 0 and "Warning" not in result.stderr, result.stderr
