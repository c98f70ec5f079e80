"""A full disk ends a command with a one-line error, and loses nothing.

When there is space again, the same command resumes the run.
"""

import pathlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from commands import assert_one_line, command
from states import assert_same, final_state
from tiny import CONFIG_FILE, metrics, tiny

from benchmarks import attempts
from vaejax.data import open_dataset
from vaejax.data.cache.disk import SETTING, Disk
from vaejax.errors import UserError

pytestmark = pytest.mark.slow

FULL = pathlib.Path("/dev/full")


@contextmanager
def small_disk(path: pathlib.Path, size: int) -> Iterator[Callable[[int], None]]:
    """Mounts a disk as `attempts.small_disk` does; skips the test if this user may not mount."""
    if reason := attempts.why_no_mount(path):
        pytest.skip(reason)
    with attempts.small_disk(path, size) as resize:
        yield resize


def test_a_full_disk_is_one_line_and_the_same_command_resumes(trained, tmp_path):
    """The disk has no room for a checkpoint; then it fills up while the run trains."""
    disk, run = tmp_path / "disk", tmp_path / "run"
    flags = (f"--config={CONFIG_FILE}", f"--workdir={disk / 'run'}")
    with small_disk(disk, 100_000) as resize:
        result = command("main", *flags)
        assert_one_line(result, f"--workdir={disk / 'run'} has 0.1 MB free, and a checkpoint needs")
        assert "make room" in result.stderr
        resize(1_100_000)
        result = command("main", *flags)
        assert "training from step 0 to 12" in result.stderr
        assert_one_line(result, str(disk))
        assert "make room" in result.stderr.splitlines()[-1]
        resize(80_000_000)
        result = command("main", *flags)
        assert result.returncode == 0, result.stderr
        assert "training from step 0" not in result.stderr
        shutil.copytree(disk / "run", run)
    assert_same(final_state(trained, tiny()), final_state(run, tiny()))
    assert metrics(trained) == metrics(run)


def test_a_picture_cache_without_room_is_named(tmp_path):
    disk = tmp_path / "disk"
    config = tiny(data={"cache_dir": str(disk), "split_seed": 77})
    message = rf"^{SETTING}='{disk}' has 0.1 MB free, but 96 pictures need [\d.]+ MB: free space"
    with small_disk(disk, 100_000), pytest.raises(UserError, match=message):
        open_dataset(config.data)


@pytest.mark.skipif(not FULL.exists(), reason=f"no {FULL}")
def test_a_picture_cache_whose_disk_fills_up_is_named(tmp_path):
    message = f"^{SETTING}='{tmp_path}' is full: free space, or name a larger disk"
    with pytest.raises(UserError, match=message), Disk(tmp_path, SETTING).usable():
        FULL.write_text("a picture")
