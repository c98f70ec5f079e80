"""The launch scripts: their commands, and what they do with real processes."""

import pathlib
import re
import shlex
import signal
import socket
import subprocess
import time

import pytest
from test_readme import SHORT
from tiny import COMMAND_TIMEOUT

REPOSITORY = pathlib.Path(__file__).parents[1]
SCRIPTS = sorted((REPOSITORY / "launch").glob("*.sh"))
LOCAL = str(REPOSITORY / "launch" / "local.sh")


def free_port():
    with socket.create_server(("localhost", 0)) as server:
        return server.getsockname()[1]


def run(*words):
    return subprocess.run(words, capture_output=True, text=True, timeout=COMMAND_TIMEOUT)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_finds_nothing(script):
    done = run("shellcheck", str(script))
    assert done.returncode == 0, done.stdout


def test_the_dry_run_shows_every_command():
    done = run(LOCAL, "--processes=2", "--devices_per_process=4", "--port=5000", "--dry_run", "--",
               "--config=a b.py")  # fmt: skip
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    for process, line in enumerate(lines):
        assert shlex.split(line) == [
            "JAX_PLATFORMS=cpu", "JAX_NUM_CPU_DEVICES=4", "python", "-m", "vaejax.main",
            "--config=a b.py", "--coordinator=localhost:5000", "--processes=2",
            f"--process={process}", "&",
        ]  # fmt: skip


@pytest.mark.parametrize("flag", ["--proceses=2", "--processes=two", "--port=0"])
def test_a_wrong_flag_is_named(flag):
    done = run(LOCAL, flag, "--", "--config=configs/quickstart.py")
    assert done.returncode == 2
    assert flag.partition("=")[2] in done.stderr


def test_the_command_of_the_readme_stops_and_goes_on(tmp_path):
    """Stopped by a signal to the script, as a machine's owner would."""
    (line,) = re.findall(r"^launch/local.sh .*$", (REPOSITORY / "README.md").read_text(), re.M)
    words = [
        *shlex.split(line), *SHORT, "--config.train.steps=400", f"--workdir={tmp_path / 'run'}"
    ]  # fmt: skip
    words.insert(1, f"--port={free_port()}")
    process = subprocess.Popen(words, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True)
    metrics = tmp_path / "run" / "metrics.jsonl"
    deadline = time.monotonic() + COMMAND_TIMEOUT
    while not (metrics.exists() and '"step": 4,' in metrics.read_text()):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=COMMAND_TIMEOUT)
    assert process.returncode == 75, said

    (saved,) = {int(line) for line in re.findall(r"step (\d+)/400", said)[-1:]}
    words[-2] = f"--config.train.steps={saved + 2 - saved % 2}"
    done = subprocess.run(words, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "new faces" in done.stderr
