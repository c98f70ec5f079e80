"""A full disk ends a command with a one-line error, and loses nothing.

When there is space again, the same command resumes the run.
"""

import contextlib
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator

import pytest
from commands import command
from states import assert_same, final_state
from tiny import CONFIG_FILE, metrics, tiny

pytestmark = pytest.mark.slow

CONFIG = f"--config={CONFIG_FILE}"


@contextlib.contextmanager
def small_disk(place: pathlib.Path, size: str) -> Iterator[None]:
    """Mounts a tmpfs of `size` at `place`; skips the test if this user may not mount one."""
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    if sys.platform != "linux" or os.geteuid() != 0 or subprocess.run(mount).returncode:
        pytest.skip("needs the right to mount a small file system")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


# Two sizes, so that the disk fills up early in the run and late in it.
@pytest.mark.parametrize("size", ["400k", "1100k"])
def test_a_full_disk_is_one_line_and_the_same_command_goes_on(trained, size, tmp_path):
    disk = tmp_path / "disk"
    with small_disk(disk, size):
        flags = (CONFIG, f"--workdir={disk / 'run'}")
        result = command("main", *flags)
        assert result.returncode == 2, result.stderr
        assert "Traceback" not in result.stderr
        lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1 and lines[0] == result.stderr.splitlines()[-1]
        assert str(disk) in lines[0] and "make room" in lines[0]
        subprocess.run(["mount", "-o", "remount,size=80m", str(disk)], check=True)
        result = command("main", *flags)
        assert result.returncode == 0, result.stderr
        assert_same(final_state(trained, tiny()), final_state(disk / "run", tiny()))
        assert metrics(trained) == metrics(disk / "run")


def test_a_cache_on_a_full_disk_is_one_line(tmp_path):
    disk = tmp_path / "disk"
    with small_disk(disk, "100k"):
        result = command(
            "main", CONFIG, f"--workdir={tmp_path / 'run'}", f"--config.data.cache_dir={disk}",
            "--config.data.split_seed=77",
        )  # fmt: skip
        assert result.returncode == 2
        assert "Traceback" not in result.stderr
        assert result.stderr.splitlines()[-1].startswith("error: config.data.cache_dir=")
