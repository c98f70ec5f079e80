"""The launch scripts: their commands, and what they do with real processes."""

import json
import os
import pathlib
import re
import shlex
import signal
import subprocess
import time

import pytest
import yaml
from test_readme import SHORT
from tiny import COMMAND_TIMEOUT, free_port

REPOSITORY = pathlib.Path(__file__).parents[1]
SCRIPTS = sorted((REPOSITORY / "launch").rglob("*.s*"))  # .sh and .sbatch
LOCAL = str(REPOSITORY / "launch" / "local.sh")


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


def slurm(directory, *flags, status=0, **variables):
    """The batch script outside of SLURM, with stand-ins that print what they are asked."""
    stand_ins = {
        "srun": f'printf "%s\\n" "$@"; exit {status}',
        "scontrol": '[ "$1" = requeue ] && echo "$@" || printf "node7\\nnode8\\n"',
    }
    for name, body in stand_ins.items():
        (directory / name).write_text(f"#!/bin/sh\n{body}\n")
        (directory / name).chmod(0o755)
    return subprocess.run(
        [str(REPOSITORY / "launch" / "slurm.sbatch"), *flags],
        capture_output=True, text=True, timeout=60,
        env={**os.environ, "PATH": f"{directory}:{os.environ['PATH']}", **variables},
    )  # fmt: skip


@pytest.mark.parametrize("status", [0, 2, 75])
def test_slurm_names_the_first_node_as_coordinator_and_goes_on_when_asked(tmp_path, status):
    done = slurm(
        tmp_path, "--config=a b.py", SLURM_JOB_NODELIST="node[7-8]", SLURM_NTASKS="2",
        SLURM_JOB_ID="123456", SLURM_SUBMIT_DIR=str(tmp_path), status=status,
    )  # fmt: skip
    assert done.returncode == status, done.stderr
    assert ("requeue 123456" in done.stdout) == (status == 75)
    assert "--coordinator=node7:" in done.stdout and "--processes=2" in done.stdout
    assert "'--config=a b.py'" in done.stdout and "--process=$SLURM_PROCID" in done.stdout


def test_slurm_says_how_it_is_started(tmp_path):
    done = slurm(tmp_path, "--config=configs/celeba.py")
    assert done.returncode == 2 and "sbatch launch/slurm.sbatch" in done.stderr


def test_the_dry_run_of_slurm_shows_every_command():
    done = run(str(REPOSITORY / "launch" / "slurm.sbatch"), "--dry_run", "--config=a b.py")
    assert done.returncode == 0, done.stderr
    first, second = map(shlex.split, done.stdout.splitlines())
    assert first[:-1] == ["srun", "--kill-on-bad-exit=0", "bash", "-c"]
    assert shlex.split(first[-1]) == [
        "exec", "python", "-m", "vaejax.main", "--config=a b.py",
        "--coordinator=FIRST_NODE:PORT", "--processes=NODES", "--process=$SLURM_PROCID",
    ]  # fmt: skip
    assert second == ["scontrol", "requeue", "JOB"]


def gke(*flags):
    return run(
        str(REPOSITORY / "launch" / "gke" / "run.sh"), "--name=faces", "--bucket=b",
        "--accelerator=tpu-v5-lite-podslice", *flags, "--", "--config=a b.py",
    )  # fmt: skip


def test_the_dry_run_of_gke_shows_the_commands_and_the_manifest():
    done = gke("--topology=4x4", "--slices=2", "--spot", "--dry_run")
    assert done.returncode == 0, done.stderr
    commands, _, rest = done.stdout.partition("<<'EOF'\n")
    text, _, after = rest.partition("EOF\n")
    words = [" ".join(shlex.split(line)) for line in f"{commands}\n{after}".splitlines()]
    assert any(line.startswith("gcloud storage rsync") for line in words)
    assert "kubectl delete jobset faces --ignore-not-found" in words
    assert "kubectl apply -f -" in words and words[-1].startswith("kubectl logs")
    assert "@" not in text
    (job,) = yaml.safe_load(text)["spec"]["replicatedJobs"]
    pod = job["template"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert (job["replicas"], job["template"]["spec"]["completions"]) == (2, 4)
    assert container["resources"]["limits"] == {"google.com/tpu": 4}
    assert pod["nodeSelector"]["cloud.google.com/gke-spot"] == "true"
    assert "gke-spot" not in gke("--topology=4x4", "--dry_run").stdout
    script = container["args"][0]
    assert shlex.split(script.splitlines()[-1]) == [
        "exec", "python", "-m", "vaejax.main", "--config=a b.py", "--workdir=/bucket/runs/faces",
        "--distributed",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "--topology is missing"),
        (["--topology=16"], "--topology=16 is no shape"),
        (["--topology=2x3"], "does not divide into machines of --chips=4"),
        (["--topology=4x4", "--slices=no"], "--slices=no is no number"),
        (["--topology=4x4", "--zone=a"], "--zone=a is no flag"),
    ],
)
def test_a_wrong_flag_of_gke_is_named(flags, words):
    done = gke(*flags)
    assert done.returncode == 2 and words in done.stderr


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
