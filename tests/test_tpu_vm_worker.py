"""The launch script for Cloud TPU VMs trains on a local worker in place of a TPU."""

import os
import re
import signal
import subprocess
import sys
import sysconfig

import pytest
from commands import COMMAND_TIMEOUT, REPOSITORY, free_pair, without_tensorflow
from tiny import CONFIG_FILE, LEAST
from waiting import wait_for_file

pytestmark = pytest.mark.slow


# A stand-in for gcloud with one worker, whose commands it runs locally with another home directory.
# When the TPU is deleted, it writes the names of the checkpoints to the file `deleted`.
WORKER = """#!/usr/bin/env bash
here=$(dirname "$0")
export HOME=$here/home PATH=$here/tools:$PATH
case "$*" in
  *" describe "*) echo ACTIVE ;;
  *" delete "*) ls "$HOME/bucket/runs/faces/checkpoints" >"$here/deleted" ;;
  *" scp "*) cp "$6" "$HOME/${7#*:}" ;;
  *" ssh "*)
    for word; do
      case "$word" in --command=*) bash -c "${word#*=}"; status=$? ;; esac
    done
    exit "$status" ;;
esac
"""
# A stand-in for uv. `venv` takes the packages of the test's own Python by a .pth file, so that they
# come after the standard library: a package may bring an older version of a standard module. `pip`
# records the inode of setup.cfg in the code of each launch, which shows whether it was replaced.
UV = """#!/usr/bin/env bash
case "$1" in
  venv) {python} -m venv --without-pip venv
    for site in venv/lib/python*/site-packages; do echo {packages} >"$site/here.pth"; done ;;
  pip) [[ "$*" == *" -c code/launch/constraints.txt "* && -s code/launch/constraints.txt ]] &&
    stat --format=%n:%i "$HOME"/launches/*/code/setup.cfg >>"$HOME/installed" ;;
esac
"""
# A training that ignores SIGTERM.
NEVER_ENDS = """
import pathlib, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
pathlib.Path("waits").touch()
time.sleep(600)
"""


@pytest.fixture
def worker(tmp_path):
    """Returns the directory of a worker that runs commands; kills its processes at the end."""
    home, tools = tmp_path / "home", tmp_path / "tools"
    executables = {tools / name: "#!/bin/sh\n" for name in ("gcsfuse", "mountpoint", "sudo")}
    executables[home / ".local" / "bin" / "uv"] = UV.format(
        python=sys.executable, packages=sysconfig.get_path("purelib")
    )
    executables[tmp_path / "gcloud"] = WORKER
    for path, text in executables.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    yield tmp_path
    subprocess.run(["pkill", "-KILL", "-f", str(tmp_path)], check=False)


def start_on_worker(worker, *flags, own=()):
    """Starts the script with the local worker, which JAX takes for the only task of a SLURM job.

    `--zone` is the worker's directory, so that the fixture's `pkill` finds the script as well.

    Args:
      worker: the worker's directory.
      flags: flags of the training.
      own: flags of the script.
    """
    variables = {
        "PATH": f"{worker}:{os.environ['PATH']}",
        "JAX_COORDINATOR_PORT": str(free_pair()), "SLURM_JOB_ID": "1", "SLURM_NTASKS": "1",
        "SLURM_STEP_NODELIST": "localhost", "SLURM_PROCID": "0", "SLURM_LOCALID": "0",
    }  # fmt: skip
    return subprocess.Popen(
        [str(REPOSITORY / "launch" / "tpu_vm.sh"), "--name=faces", f"--zone={worker}", "--bucket=b",
         "--type=v5litepod-1", "--poll=0", *own, "--", f"--config={CONFIG_FILE}",
         *LEAST, "--config.prior.fitted=()", "--config.train.save_every=1000000",
         "--config.train.eval_every=1000000", *flags],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, **without_tensorflow(), **variables},
    )  # fmt: skip


def test_an_interrupt_waits_for_the_save_and_a_new_launch_resumes_the_run(worker):
    """The run saves only when it is stopped; the TPU must not be deleted before it has saved."""
    home, endless = worker / "home", "--config.train.steps=1000000"
    log = home / "bucket" / "runs" / "faces" / "metrics.jsonl"
    first = start_on_worker(worker, endless)
    wait_for_file(log, '"step": 30,')
    first.send_signal(signal.SIGINT)
    output, _ = first.communicate(timeout=COMMAND_TIMEOUT)
    assert first.returncode == 75, output
    (saved,) = [int(name) for name in (worker / "deleted").read_text().split() if name.isdigit()]
    assert saved >= 30, "the TPU was deleted before the run had saved"

    # SIGKILL, as when a laptop is closed: the worker gets no signal, and its training continues.
    second = start_on_worker(worker, endless)
    wait_for_file(log, f'"step": {saved - saved % 3 + 30},')
    second.kill()
    third = start_on_worker(worker, "--config.train.steps=30")
    output, _ = second.communicate(timeout=COMMAND_TIMEOUT)
    assert "SIGTERM: saving, then stopping" in output and "vaejax exited with 75" in output
    output, _ = third.communicate(timeout=COMMAND_TIMEOUT)
    assert third.returncode == 0, output
    assert int(re.search(r"is at step (\d+) of", output)[1]) >= saved + 28
    # A launch leaves the code of the launch before unchanged, and removes it once that has stopped.
    found = set((home / "installed").read_text().split())
    assert len(found) == 3, "a launch has replaced the code of another one"
    assert len(list((home / "launches").iterdir())) == 1


def test_a_new_launch_kills_a_training_that_does_not_end(worker):
    """A training of an earlier launch ignores SIGTERM; `--save_minutes` is how long it may take.

    The new training ends with a mistake in its flags.
    """
    old = worker / "home" / "launches" / "old"
    python = old / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    (old / "vaejax").mkdir()
    (old / "vaejax" / "__init__.py").touch()
    (old / "vaejax" / "main.py").write_text(NEVER_ENDS)
    stuck = subprocess.Popen([python, "-m", "vaejax.main"], cwd=old)
    wait_for_file(old / "waits")
    launched = start_on_worker(worker, "--config.train.steps=0", own=["--save_minutes=0"])
    output, _ = launched.communicate(timeout=COMMAND_TIMEOUT)
    assert launched.returncode == 2 and "error: config.train.steps=0" in output, output
    assert stuck.wait(timeout=1) == -signal.SIGKILL and not old.exists()
