"""Listing and pruning of the caches by `vaejax.prepare`, and damaged compiled programs."""

import os
import pathlib
import subprocess
import sys
import time

import filelock
import numpy as np
import pytest
from commands import command
from picture_trees import jpeg
from tiny import CONFIG_FILE

from vaejax.config import DataConfig
from vaejax.data import open_dataset
from vaejax.data.cache import inventory
from vaejax.errors import UserError

DAYS = 24 * 60 * 60


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Returns the path of a new cache directory, which does not exist yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    return tmp_path / "xdg" / "vaejax"


def build(tmp_path, count: int, age: float) -> pathlib.Path:
    """Builds a cache of `count` pictures, last used `age` days ago, and returns its directory.

    Another process builds it: a process that has opened a cache marks it as in use until it ends.
    """
    faces = tmp_path / f"faces{count}"
    faces.mkdir()
    for number in range(count):
        (faces / f"{number}.jpg").write_bytes(jpeg(number))
    flags = [f"--config={CONFIG_FILE}", "--config.data.source=folder"]
    done = command("prepare", *flags, f"--config.data.path={faces}", "--config.data.holdout=(0,0)")
    assert done.returncode == 0, done.stderr
    root = pathlib.Path(os.environ["XDG_CACHE_HOME"]) / "vaejax"
    (folder,) = [
        path for path in root.iterdir() if (path / "train.npy").exists() and length(path) == count
    ]
    set_age(folder, age)
    return folder


def length(folder: pathlib.Path) -> int:
    """Returns the number of training pictures in a cache."""
    return len(np.load(folder / "train.npy", mmap_mode="r"))


def set_age(folder: pathlib.Path, days: float) -> None:
    then = time.time() - days * DAYS
    os.utime(folder / "last_used", (then, then))


def write_programs(root: pathlib.Path, **ages: float) -> None:
    """Writes files like those of JAX's compilation cache, by name and days since the last use."""
    (root / "xla").mkdir(parents=True)
    for name, days in ages.items():
        for suffix in ("cache", "atime"):
            path = root / "xla" / f"{name}-{suffix}"
            path.write_bytes(bytes(1_000_000))
            os.utime(path, (time.time() - days * DAYS,) * 2)


def test_what_is_cached_is_listed(tmp_path, root):
    done = command("prepare", "--list")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"nothing is cached in {root}\n"
    folder = build(tmp_path, 3, age=0)
    write_programs(root, jit_step=2.0, jit_init=9.0)
    done = command("prepare", "--list")
    assert done.returncode == 0, done.stderr
    header, _, *rows = done.stdout.splitlines()
    columns = [cell.strip() for cell in header.strip("|").split("|")]
    table = [dict(zip(columns, map(str.strip, row.strip("|").split("|")))) for row in rows]
    day = time.strftime("%Y-%m-%d")
    assert table[0].pop("MB")
    assert table[0] == {
        "what": "folder: 3 pictures 28x28 RGB, crop center",
        "last used": day,
        "path": str(folder),
    }
    assert table[1]["what"] == "2 compiled programs"
    assert table[1]["path"] == str(root / "xla")
    assert table[1]["MB"] == "2"


def test_what_was_long_unused_is_removed(tmp_path, root):
    old, new = build(tmp_path, 3, age=31), build(tmp_path, 4, age=29)
    write_programs(root, old=31, new=29)
    killed = root / f"{'a' * 24}.building"
    killed.mkdir()
    os.utime(killed, (0, 0))
    mine = root / "mine"
    mine.mkdir()
    (mine / "notes.txt").write_text("not of vaejax")
    os.utime(mine, (0, 0))
    done = command("prepare", "--prune=30d")
    assert done.returncode == 0, done.stderr
    assert "removed 3 from the caches, which frees 1.0 MB" in done.stderr
    assert not old.exists() and not killed.exists()
    assert length(new) == 4
    assert (mine / "notes.txt").exists()
    left = {path.name for path in (root / "xla").iterdir() if not path.name.startswith(".")}
    assert left == {"new-cache", "new-atime"}
    done = command("prepare", "--prune=all", "--list")
    assert "removed 2 from the caches" in done.stderr
    assert "nothing is cached" in done.stdout
    assert not list(root.glob("*.building"))


def test_what_is_in_use_stays(tmp_path, root):
    used, building, old = (build(tmp_path, count, age=99) for count in (3, 4, 5))
    config = DataConfig(
        source="folder",
        path=str(tmp_path / "faces3"),
        image_size=(28, 28),
        crop="center",
        holdout=(0.0, 0.0),
    )
    dataset = open_dataset(config, progress=False)
    assert pathlib.Path(dataset.report["file"]).parent == used
    assert (used / "last_used").stat().st_mtime > time.time() - DAYS
    set_age(used, 99)
    with filelock.FileLock(root / f"{building.name}.lock"):
        done = command("prepare", "--prune=30d")
    assert done.returncode == 0, done.stderr
    assert f"{used} stays (in use)" in done.stderr
    assert f"{building} stays (in use)" in done.stderr
    assert "removed 1 from the caches" in done.stderr
    assert not old.exists()
    assert dataset.splits["train"].images.any()


@pytest.mark.parametrize("text", ["30", "d", "-1d", "0x3d", "everything", ""])
def test_a_time_that_is_none_is_refused(text):
    with pytest.raises(
        UserError, match=f"--prune={text} must be a number of days such as 30d, or a"
    ):
        inventory.days_of(text)


def test_a_mistaken_flag_is_one_line():
    done = command("prepare", "--prune=30")
    assert done.returncode == 2
    assert done.stderr == "error: --prune=30 must be a number of days such as 30d, or all\n"


def test_caches_elsewhere_are_those_of_the_config(tmp_path, root):
    flags = [f"--config={CONFIG_FILE}", f"--config.data.cache_dir={tmp_path / 'elsewhere'}"]
    assert command("prepare", *flags).returncode == 0
    done = command("prepare", *flags, "--list")
    assert "synthetic: 96 pictures" in done.stdout
    assert "nothing is cached" in command("prepare", "--list").stdout


# --- compiled programs -----------------------------------------------------------------------

COMPILE = """
import jax
from vaejax.runtime import program_cache
program_cache.keep_compiled_programs()
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
print(jax.config.jax_compilation_cache_max_size == program_cache.PROGRAMS_BYTES)
print(jax.jit(lambda x: x * 3 + 1)(2.0))
"""


def compile_once(before: str = "") -> str:
    """Runs `COMPILE` in a new process with the default compilation cache; returns its stdout.

    Args:
      before: code to run first.
    """
    environment = {name: os.environ[name] for name in os.environ if "COMPILATION_CACHE" not in name}
    done = subprocess.run(
        [sys.executable, "-c", before + COMPILE],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout


DAMAGES = {
    "cut": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "junk": lambda content: b"junk" * 100,
    "torn": lambda content: content[:100] + b"\xff" * 50 + content[150:],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_program_is_compiled_again_without_a_word(root, damage):
    assert compile_once() == "True\n7.0\n"
    programs = list((root / "xla").glob("*-cache"))
    assert programs
    for path in programs:
        path.write_bytes(DAMAGES[damage](path.read_bytes()))
    assert compile_once() == "True\n7.0\n"


def test_programs_whose_writing_did_not_end_are_replaced(root):
    compile_once()
    (program, *_) = (root / "xla").glob("*-cache")
    whole = program.read_bytes()
    program.write_bytes(whole[:50])
    used = program.with_name(program.name.replace("-cache", "-atime"))
    used.unlink()
    compile_once()
    assert len(program.read_bytes()) > 50
    assert used.exists()


def test_where_nothing_can_be_locked_programs_are_kept_without_a_limit(root):
    refuse = """
import filelock
def refuse(*arguments, **options):
    raise NotImplementedError("no locks here")
filelock.FileLock.acquire = refuse
"""
    assert compile_once(refuse) == "False\n7.0\n"
    assert list((root / "xla").glob("*-cache"))


def test_a_place_for_programs_that_cannot_be_is_no_matter(root):
    root.mkdir(parents=True)
    (root / "xla").write_text("a file")
    assert compile_once() == "False\n7.0\n"


def test_a_program_that_cannot_be_removed_is_the_one_that_is_named(root, monkeypatch):
    write_programs(root, first=40, second=41)
    unlink = pathlib.Path.unlink

    def fail(path, **how):
        if path.name.startswith("second"):
            raise PermissionError(13, "Permission denied", str(path))
        unlink(path, **how)

    monkeypatch.setattr(pathlib.Path, "unlink", fail)
    handled = list(inventory.prune(root, root / "xla", 30))
    assert [(stored.path.name, bool(reason)) for stored, reason in handled] == [
        ("first-cache", False),
        ("second-cache", True),
    ]
