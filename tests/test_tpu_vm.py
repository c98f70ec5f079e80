"""The launch script for Cloud TPU VMs, tested with stand-ins for gcloud."""

import json
import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys
import sysconfig
import time

import pytest
from commands import COMMAND_TIMEOUT, free_pair, without_tensorflow
from tiny import CONFIG_FILE, LEAST

pytestmark = pytest.mark.slow

REPOSITORY = pathlib.Path(__file__).parents[1]

# A stand-in for gcloud. It appends each request to the file `asked`, and answers it from play.json,
# which holds for each kind of request a list of [exit status, output]; the last one is repeated.
# Without an answer for `train`, the training runs until the script asks it to stop. If play.json
# has "saving", it never finishes its save, so that both requests last until the TPU is deleted.
STAND_IN = """#!/usr/bin/env python3
import json, pathlib, sys, time
home, words = pathlib.Path(__file__).parent, sys.argv[1:]
with (home / "asked").open("a") as file:
    file.write(json.dumps(words) + "\\n")
line = " ".join(words)
kind = next((kind for kind in ("describe", "create", "delete", "scp") if f" {kind} " in line), None)
kind = kind or ("train" if "vaejax exited" in line else "ssh")
if kind == "ssh" and "pkill" in line:
    (home / "stopped").touch()
if kind == "delete":
    (home / "deleted").touch()
play = json.loads((home / "play.json").read_text())
end = home / "deleted" if "saving" in play else home / "stopped"
while kind == "train" and kind not in play and not end.exists():
    time.sleep(0.05)
while kind == "ssh" and "pkill" in line and "saving" in play and not end.exists():
    time.sleep(0.05)
answers = play.get(kind, [[0, ""]])
status, text = answers[0]
if len(answers) > 1:
    play[kind] = answers[1:]
    (home / "play.json").write_text(json.dumps(play))
print(text, file=sys.stderr if status else sys.stdout)
sys.exit(status)
"""
# Answers of the training (DONE) and of `describe` (the state of the TPU).
DONE = [0, "vaejax exited with 0\nvaejax exited with 0"]
READY, WARNED = [0, "ACTIVE"], [0, "WARNING: this gcloud is old\nACTIVE"]
NONE, WAITING, SUSPENDED = [1, "NOT_FOUND"], [0, "WAITING_FOR_RESOURCES"], [0, "SUSPENDED"]


def start_tpu_vm(directory, *flags, **play):
    """Starts the script with a stand-in for gcloud, whose answers are `play`."""
    (directory / "gcloud").write_text(STAND_IN)
    (directory / "gcloud").chmod(0o755)
    (directory / "play.json").write_text(json.dumps(play))
    return subprocess.Popen(
        [str(REPOSITORY / "launch" / "tpu_vm.sh"), "--name=faces", "--zone=z", "--bucket=b",
         "--type=v5litepod-16", "--poll=0", *flags, "--", "--config=configs/celeba.py"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PATH": f"{directory}:{os.environ['PATH']}"},
    )  # fmt: skip


def end_of_tpu_vm(directory, process):
    """Waits for the script; returns its result, and the numbers of requests by kind."""
    said = process.communicate(timeout=60)
    done = subprocess.CompletedProcess(process.args, process.returncode, *said)
    asked = directory / "asked"
    lines = asked.read_text().splitlines() if asked.exists() else []
    kinds = [" ".join(json.loads(line)) for line in lines]
    count = {kind: sum(f" {kind} " in words for words in kinds) for kind in ("create", "delete")}
    count["train"] = sum("vaejax exited" in words for words in kinds)
    return done, count


def tpu_vm(directory, *flags, **play):
    return end_of_tpu_vm(directory, start_tpu_vm(directory, *flags, **play))


def wait_for(path, words=""):
    """Waits until the file exists and contains these words."""
    deadline = time.monotonic() + COMMAND_TIMEOUT
    while not path.exists() or words not in path.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(("state", "doing"), [(WAITING, "describe"), (READY, "vaejax exited")])
def test_tpu_vm_that_is_interrupted_leaves_nothing_to_pay(tmp_path, state, doing):
    process = start_tpu_vm(tmp_path, "--poll=600", describe=[state])
    wait_for(tmp_path / "asked", doing)
    process.send_signal(signal.SIGTERM)
    done, counts = end_of_tpu_vm(tmp_path, process)
    assert done.returncode == 75 and counts["delete"] == 1, done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_interrupt_does_not_wait(tmp_path, number):
    process = start_tpu_vm(tmp_path, describe=[READY], saving=[])
    wait_for(tmp_path / "asked", "vaejax exited")
    process.send_signal(number)
    wait_for(tmp_path / "stopped")
    time.sleep(2.0)
    assert process.poll() is None and not (tmp_path / "deleted").exists(), "it must await the save"
    started = time.monotonic()
    process.send_signal(number)
    done, counts = end_of_tpu_vm(tmp_path, process)
    assert time.monotonic() - started < 60.0, "a second signal must not wait for the save"
    assert done.returncode == 75 and counts["delete"] == 1, done.stderr
    assert "waiting at most 10 minutes" in done.stderr and "stops at once" in done.stderr
    assert "--async" in (tmp_path / "asked").read_text().splitlines()[-1]


@pytest.mark.parametrize(
    ("play", "flags", "status", "count"),
    [
        # A TPU is requested, becomes active, trains, and is deleted.
        ({"describe": [NONE, WAITING, READY], "train": [DONE]}, [], 0, (1, 1, 1)),
        # An existing TPU is used again; --keep does not delete it.
        ({"describe": [WARNED], "train": [DONE]}, ["--keep"], 0, (0, 0, 1)),
        # Two requests fail because there is no capacity; the third succeeds.
        ({"describe": [NONE, NONE, NONE, READY], "train": [DONE],
          "create": [[1, "ERROR: RESOURCE_EXHAUSTED"], [1, "there is no more capacity"], [0, ""]]},
         ["--spot"], 0, (3, 1, 1)),
        # The request is not permitted, so it is not repeated.
        ({"describe": [NONE], "create": [[1, "ERROR: PERMISSION_DENIED: no"]]}, [], 2, (1, 0, 0)),
        # The TPU is preempted during training; a new one is requested, and the run resumes.
        ({"describe": [READY, SUSPENDED, SUSPENDED, NONE, READY],
          "train": [[255, "connection closed"], DONE], "delete": [[1, "busy"], [0, ""]]},
         ["--spot"], 0, (1, 2, 2)),
        # The training exits with status 75, which asks for the same command again.
        ({"describe": [READY], "train": [[1, "vaejax exited with 75"], DONE]}, [], 0, (0, 1, 2)),
        # One process crashes each time, and the others exit with 75: the script gives up.
        ({"describe": [READY], "train": [[1, "vaejax exited with 137\nvaejax exited with 75"]]},
         [], 1, (0, 1, 3)),
        # If `describe` fails, the TPU may exist: it is not requested, and is deleted at the end.
        ({"describe": [[1, "connection reset"], READY], "train": [DONE]}, [], 0, (0, 1, 1)),
        ({"describe": [[1, "PERMISSION_DENIED: no"]]}, [], 2, (0, 1, 0)),
        # The training fails, the user made a mistake, it crashes three times, the set-up fails.
        ({"describe": [READY], "train": [[1, "vaejax exited with 3"]]}, [], 3, (0, 1, 1)),
        ({"describe": [READY], "train": [[1, "vaejax exited with 2"]]}, [], 2, (0, 1, 1)),
        ({"describe": [READY], "train": [[1, "vaejax exited with 1"]]}, [], 1, (0, 1, 3)),
        ({"describe": [READY], "scp": [[1, "no route"]]}, [], 1, (0, 1, 0)),
        # The time of --hours is over before the TPU is active.
        ({"describe": [WAITING]}, ["--hours=0"], 75, (0, 1, 0)),
    ],
)  # fmt: skip
def test_tpu_vm_does_the_right_thing(tmp_path, play, flags, status, count):
    done, counts = tpu_vm(tmp_path, *flags, **play)
    assert done.returncode == status, done.stderr
    assert tuple(counts.values()) == count, done.stderr
    assert (status in (0, 75)) or "error: " in done.stderr


def test_the_dry_run_of_tpu_vm_runs_nothing(tmp_path):
    done, counts = tpu_vm(tmp_path, "--dry_run", "--spot")
    assert done.returncode == 0 and not any(counts.values())
    pack, create, *_, copy, install, train, delete = done.stdout.splitlines()
    assert "launch/constraints.txt" in shlex.split(pack)
    (launch,) = set(re.findall(r"launches/[\d-]+", f"{copy} {install} {train}"))
    other = tpu_vm(tmp_path, "--dry_run")[0].stdout
    assert launch not in other, "each launch must have its own directory"
    assert "pip install -q --python venv/bin/python -c code/launch/constraints.txt" in install
    assert "JAX_COORDINATOR_PORT=8476 VAEJAX_PORT=8477 " in train
    assert shlex.split(create) == [
        "gcloud", "compute", "tpus", "queued-resources", "create", "faces", "--node-id=faces",
        "--accelerator-type=v5litepod-16", "--runtime-version=v2-alpha-tpuv5-lite", "--spot",
        "--zone=z",
    ]  # fmt: skip
    assert re.search(r"timeout --preserve-status --kill-after=601 86\d\d\d ", train)
    assert "--distributed" in train and "configs/celeba.py" in train and "runs/faces" in train
    assert "'delete' 'faces'" in delete


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--type=v9-1"], "no software version is known for --type=v9-1"),
        (["--hours=soon"], "--hours=soon is no whole number"),
        (["--poll=30s"], "--poll=30s is no whole number"),
        (["--save_minutes=long"], "--save_minutes=long is no whole number"),
        (["--zone="], "--zone is missing"),
        (["--zones=a"], "--zones=a is no flag"),
    ],
)
def test_a_wrong_flag_of_tpu_vm_is_named(tmp_path, flags, words):
    done, counts = tpu_vm(tmp_path, *flags)
    assert done.returncode == 2 and words in done.stderr and not any(counts.values())


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
    surroundings = {
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
        env={**os.environ, **without_tensorflow(), **surroundings},
    )  # fmt: skip


def test_an_interrupt_waits_for_the_save_and_other_launches_go_on(worker):
    """The run saves only when it is stopped; the TPU must not be deleted before it has saved."""
    home, endless = worker / "home", "--config.train.steps=1000000"
    log = home / "bucket" / "runs" / "faces" / "metrics.jsonl"
    first = start_on_worker(worker, endless)
    wait_for(log, '"step": 30,')
    first.send_signal(signal.SIGINT)
    said, _ = first.communicate(timeout=COMMAND_TIMEOUT)
    assert first.returncode == 75, said
    (saved,) = [int(name) for name in (worker / "deleted").read_text().split() if name.isdigit()]
    assert saved >= 30, "the TPU was deleted before the run had saved"

    # SIGKILL, as when a laptop is closed: the worker gets no signal, and its training continues.
    second = start_on_worker(worker, endless)
    wait_for(log, f'"step": {saved - saved % 3 + 30},')
    second.kill()
    third = start_on_worker(worker, "--config.train.steps=30")
    said, _ = second.communicate(timeout=COMMAND_TIMEOUT)
    assert "SIGTERM: saving, then stopping" in said and "vaejax exited with 75" in said
    said, _ = third.communicate(timeout=COMMAND_TIMEOUT)
    assert third.returncode == 0, said
    assert int(re.search(r"is at step (\d+) of", said)[1]) >= saved + 28
    # A launch leaves the code of the launch before unchanged, and removes it once that has stopped.
    found = set((home / "installed").read_text().split())
    assert len(found) == 3, "a launch has replaced the code of another one"
    assert len(list((home / "launches").iterdir())) == 1


def test_what_does_not_end_is_ended_after_some_minutes(worker):
    """A training of an earlier launch that ignores SIGTERM is killed after `--save_minutes`."""
    old = worker / "home" / "launches" / "old"
    python = old / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    (old / "vaejax").mkdir()
    (old / "vaejax" / "__init__.py").touch()
    (old / "vaejax" / "main.py").write_text(NEVER_ENDS)
    stuck = subprocess.Popen([python, "-m", "vaejax.main"], cwd=old)
    wait_for(old / "waits")
    done = start_on_worker(worker, "--config.train.steps=2", own=["--save_minutes=0"])
    said, _ = done.communicate(timeout=COMMAND_TIMEOUT)
    assert done.returncode == 0, said
    assert stuck.wait(timeout=1) == -signal.SIGKILL and not old.exists()
