"""What the launch script for Cloud TPU VMs asks of gcloud, and when it deletes the TPU."""

import json
import os
import re
import shlex
import signal
import subprocess

import pytest
from commands import REPOSITORY
from waiting import wait_for_file

pytestmark = pytest.mark.slow


# A stand-in for gcloud. It appends each request to the file `asked`, and answers it from play.json,
# which holds for each kind of request a list of [exit status, output]; the last one is repeated.
# Without an answer for `train`, the training runs until the script asks it to stop. If play.json
# has "saving", it never finishes its save, so that both requests last until the TPU is deleted.
STAND_IN = """#!/usr/bin/env -S python3 -S
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
# A stand-in for `sleep`, which records in the file `slept` that the script waits for a save.
SLEEP = """#!/usr/bin/env bash
[[ $1 != 1 ]] || { echo waiting >>"$(dirname "$0")/slept"; set -- 0.05; }
PATH=${PATH#*:}
exec sleep "$@"
"""
# Answers of the training (DONE) and of `describe` (the state of the TPU).
DONE = [0, "vaejax exited with 0\nvaejax exited with 0"]
READY, WARNED = [0, "ACTIVE"], [0, "WARNING: this gcloud is old\nACTIVE"]
NONE, WAITING, SUSPENDED = [1, "NOT_FOUND"], [0, "WAITING_FOR_RESOURCES"], [0, "SUSPENDED"]


def start_tpu_vm(directory, *flags, **play):
    """Starts the script with a stand-in for gcloud, whose answers are `play`."""
    for name, text in (("gcloud", STAND_IN), ("sleep", SLEEP)):
        (directory / name).write_text(text)
        (directory / name).chmod(0o755)
    (directory / "play.json").write_text(json.dumps(play))
    return subprocess.Popen(
        [str(REPOSITORY / "launch" / "tpu_vm.sh"), "--name=faces", "--zone=z", "--bucket=b",
         "--type=v5litepod-16", "--poll=0", *flags, "--", "--config=configs/celeba.py"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PATH": f"{directory}:{os.environ['PATH']}"},
    )  # fmt: skip


def end_of_tpu_vm(directory, process):
    """Waits for the script; returns its result, and the numbers of requests by kind."""
    output = process.communicate(timeout=60)
    done = subprocess.CompletedProcess(process.args, process.returncode, *output)
    asked = directory / "asked"
    lines = asked.read_text().splitlines() if asked.exists() else []
    requests = [" ".join(json.loads(line)) for line in lines]
    count = {
        kind: sum(f" {kind} " in request for request in requests) for kind in ("create", "delete")
    }
    count["train"] = sum("vaejax exited" in request for request in requests)
    return done, count


def tpu_vm(directory, *flags, **play):
    return end_of_tpu_vm(directory, start_tpu_vm(directory, *flags, **play))


@pytest.mark.parametrize(
    ("state", "request_to_wait_for", "number"),
    [
        (WAITING, "describe", signal.SIGTERM),
        (READY, "vaejax exited", signal.SIGTERM),
        (READY, "vaejax exited", signal.SIGHUP),
    ],
)
def test_an_interrupted_tpu_vm_deletes_the_tpu(tmp_path, state, request_to_wait_for, number):
    process = start_tpu_vm(tmp_path, "--poll=600", describe=[state])
    wait_for_file(tmp_path / "asked", request_to_wait_for, by=[process])
    process.send_signal(number)
    done, counts = end_of_tpu_vm(tmp_path, process)
    assert done.returncode == 75 and counts["delete"] == 1, done.stderr
    assert (tmp_path / "stopped").exists() == (state is READY), "a training must be asked to stop"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_interrupt_does_not_wait_for_the_save(tmp_path, number):
    process = start_tpu_vm(tmp_path, describe=[READY], saving=[])
    wait_for_file(tmp_path / "asked", "vaejax exited", by=[process])
    process.send_signal(number)
    wait_for_file(tmp_path / "slept", "waiting\n" * 5, by=[process])
    assert not (tmp_path / "deleted").exists(), "it must wait for the save"
    process.send_signal(number)
    done, counts = end_of_tpu_vm(tmp_path, process)
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
def test_tpu_vm_reacts_to_the_answers_of_gcloud(tmp_path, play, flags, status, count):
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
    ("flags", "message"),
    [
        (["--type=v9-1"], "no software version is known for --type=v9-1"),
        (["--hours=soon"], "--hours=soon is no whole number"),
        (["--poll=30s"], "--poll=30s is no whole number"),
        (["--save_minutes=long"], "--save_minutes=long is no whole number"),
        (["--zone="], "--zone is missing"),
        (["--zones=a"], "--zones=a is no flag"),
    ],
)
def test_a_wrong_flag_of_tpu_vm_is_named(tmp_path, flags, message):
    done, counts = tpu_vm(tmp_path, *flags)
    assert done.returncode == 2 and message in done.stderr and not any(counts.values())
