"""The launch script of Cloud TPU VMs, with a gcloud that plays its part."""

import json
import os
import pathlib
import re
import shlex
import signal
import subprocess
import time

import pytest

REPOSITORY = pathlib.Path(__file__).parents[1]

# Plays the answers it was given, in order, and keeps what it was asked. The last answer stays.
# Without one to its training, it trains until it is told to stop.
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
play = json.loads((home / "play.json").read_text())
while kind == "train" and kind not in play and not (home / "stopped").exists():
    time.sleep(0.05)
answers = play.get(kind, [[0, ""]])
status, text = answers[0]
if len(answers) > 1:
    play[kind] = answers[1:]
    (home / "play.json").write_text(json.dumps(play))
print(text, file=sys.stderr if status else sys.stdout)
sys.exit(status)
"""
DONE = [0, "vaejax exited with 0\nvaejax exited with 0"]
READY, WARNED = [0, "ACTIVE"], [0, "WARNING: this gcloud is old\nACTIVE"]
NONE, WAITING, SUSPENDED = [1, "NOT_FOUND"], [0, "WAITING_FOR_RESOURCES"], [0, "SUSPENDED"]


def start_tpu_vm(directory, *flags, **play):
    """The script with a gcloud that plays its part."""
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
    """How the script ended, and what its gcloud was asked, by kind."""
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


@pytest.mark.parametrize(("state", "doing"), [(WAITING, "describe"), (READY, "vaejax exited")])
def test_tpu_vm_that_is_interrupted_leaves_nothing_to_pay(tmp_path, state, doing):
    process = start_tpu_vm(tmp_path, describe=[state])
    deadline, asked = time.monotonic() + 60, tmp_path / "asked"
    while not asked.exists() or doing not in asked.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    done, counts = end_of_tpu_vm(tmp_path, process)
    assert done.returncode == 75 and counts["delete"] == 1, done.stderr


@pytest.mark.parametrize(
    ("play", "flags", "status", "count"),
    [
        # Asked for, waited for, trained, deleted.
        ({"describe": [NONE, WAITING, READY], "train": [DONE]}, [], 0, (1, 1, 1)),
        # One that is there is used again, and may be kept.
        ({"describe": [WARNED], "train": [DONE]}, ["--keep"], 0, (0, 0, 1)),
        # Nothing to be had, twice.
        ({"describe": [NONE, NONE, NONE, READY], "train": [DONE],
          "create": [[1, "ERROR: RESOURCE_EXHAUSTED"], [1, "there is no more capacity"], [0, ""]]},
         ["--spot"], 0, (3, 1, 1)),
        # Not allowed: trying again would not help.
        ({"describe": [NONE], "create": [[1, "ERROR: PERMISSION_DENIED: no"]]}, [], 2, (1, 0, 0)),
        # Taken away in the middle.
        ({"describe": [READY, SUSPENDED, SUSPENDED, NONE, READY],
          "train": [[255, "connection closed"], DONE], "delete": [[1, "busy"], [0, ""]]},
         ["--spot"], 0, (1, 2, 2)),
        # Stopped by a signal, or by a process that died.
        ({"describe": [READY], "train": [[1, "vaejax exited with 75"], DONE]}, [], 0, (0, 1, 2)),
        # Somebody crashes each time, and the others stop for that.
        ({"describe": [READY], "train": [[1, "vaejax exited with 137\nvaejax exited with 75"]]},
         [], 1, (0, 1, 3)),
        # What is not seen is not taken for gone.
        ({"describe": [[1, "connection reset"], READY], "train": [DONE]}, [], 0, (0, 1, 1)),
        ({"describe": [[1, "PERMISSION_DENIED: no"]]}, [], 2, (0, 1, 0)),
        # A training that failed, a mistake, a crash that comes back, machines without internet.
        ({"describe": [READY], "train": [[1, "vaejax exited with 3"]]}, [], 3, (0, 1, 1)),
        ({"describe": [READY], "train": [[1, "vaejax exited with 2"]]}, [], 2, (0, 1, 1)),
        ({"describe": [READY], "train": [[1, "vaejax exited with 1"]]}, [], 1, (0, 1, 3)),
        ({"describe": [READY], "scp": [[1, "no route"]]}, [], 1, (0, 1, 0)),
        # Out of time before there was one.
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
    create, *_, train, delete = done.stdout.splitlines()
    assert shlex.split(create) == [
        "gcloud", "compute", "tpus", "queued-resources", "create", "faces", "--node-id=faces",
        "--accelerator-type=v5litepod-16", "--runtime-version=v2-alpha-tpuv5-lite", "--spot",
        "--zone=z",
    ]  # fmt: skip
    assert re.search(r"timeout --preserve-status 86\d\d\d ", train)
    assert "--distributed" in train and "configs/celeba.py" in train and "runs/faces" in train
    assert "'delete' 'faces'" in delete


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--type=v9-1"], "no software version is known for --type=v9-1"),
        (["--hours=soon"], "--hours=soon is no whole number"),
        (["--poll=30s"], "--poll=30s is no whole number"),
        (["--zone="], "--zone is missing"),
        (["--zones=a"], "--zones=a is no flag"),
    ],
)
def test_a_wrong_flag_of_tpu_vm_is_named(tmp_path, flags, words):
    done, counts = tpu_vm(tmp_path, *flags)
    assert done.returncode == 2 and words in done.stderr and not any(counts.values())
