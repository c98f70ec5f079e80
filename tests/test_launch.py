"""The launch scripts: the commands they print, and the processes they start.

test_tpu_vm.py and test_tpu_vm_worker.py have most tests of tpu_vm.sh.
"""

import os
import re
import shlex
import signal
import subprocess

import pytest
import yaml
from commands import COMMAND_TIMEOUT, REPOSITORY, free_port, without_tensorflow
from shown import NARROW, SHORT, SMALL
from waiting import finish, wait_for_file

pytestmark = pytest.mark.slow

SCRIPTS = sorted((REPOSITORY / "launch").rglob("*.s*"))  # .sh and .sbatch
LOCAL = str(REPOSITORY / "launch" / "local.sh")
SLURM = str(REPOSITORY / "launch" / "slurm.sbatch")


def run(*words):
    return subprocess.run(
        words, cwd=REPOSITORY, capture_output=True, text=True, timeout=COMMAND_TIMEOUT
    )


def test_shellcheck_finds_nothing():
    assert len(SCRIPTS) == 4
    done = run("shellcheck", *map(str, SCRIPTS))
    assert done.returncode == 0, done.stdout


def test_the_dry_run_of_local_shows_every_command():
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


def test_the_environment_chooses_the_port(monkeypatch):
    monkeypatch.setenv("JAX_COORDINATOR_PORT", "5000")
    words = "--config=a"
    for done, port in (
        (run(LOCAL, "--dry_run", "--", words), "--coordinator=localhost:5000"),
        (run(SLURM, "--dry_run", words), "--coordinator=FIRST_NODE:5000"),
        (gke("--topology=4x4", "--dry_run"), 'name: JAX_COORDINATOR_PORT, value: "5000"'),
        (tpu_vm(), "JAX_COORDINATOR_PORT=5000 VAEJAX_PORT=5001 "),
    ):
        assert done.returncode == 0 and port in done.stdout, done.stderr
    monkeypatch.setenv("JAX_COORDINATOR_PORT", "abc")
    for done in (run(LOCAL, "--dry_run", "--", words), gke("--topology=4x4"), tpu_vm()):
        assert done.returncode == 2 and "abc" in done.stderr and not done.stdout


def tpu_vm():
    return run(str(REPOSITORY / "launch" / "tpu_vm.sh"), "--name=faces", "--zone=z", "--bucket=b",
               "--type=v4-8", "--dry_run", "--", "--config=a")  # fmt: skip


@pytest.mark.parametrize("flag", ["--proceses=2", "--processes=two", "--port=0"])
def test_a_wrong_flag_of_local_is_named(flag):
    done = run(LOCAL, flag, "--", "--config=configs/quickstart.py")
    assert done.returncode == 2
    assert flag in done.stderr


@pytest.mark.parametrize(
    ("statuses", "status"),
    [((0, 0), 0), ((0, 75), 75), ((75, 2), 2), ((2, 75), 2), ((137, 75), 137), ((3, 2), 3)],
)
def test_local_exits_with_the_status_that_says_most(tmp_path, statuses, status):
    """Processes that stop because another one has failed exit with 75."""
    python = tmp_path / "python"
    python.write_text(
        f"#!/usr/bin/env bash\nstatuses=({' '.join(map(str, statuses))})\n"
        'last=${!#} # --process=INDEX\nexit "${statuses[${last#*=}]}"\n'
    )
    python.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run([LOCAL, "--", "--config=a"], env=environment, timeout=COMMAND_TIMEOUT)
    assert done.returncode == status


def test_the_command_of_the_readme_stops_and_resumes(tmp_path, monkeypatch):
    """Sends SIGTERM to the script, not to the processes that it has started."""
    for name, value in without_tensorflow().items():
        monkeypatch.setenv(name, value)
    (line,) = re.findall(r"^launch/local.sh .*$", (REPOSITORY / "README.md").read_text(), re.M)
    run_directory = tmp_path / "run"
    words = [*shlex.split(line), *SHORT, *NARROW, *SMALL, f"--workdir={run_directory}"]
    words.insert(1, f"--port={free_port()}")
    process = subprocess.Popen(
        [*words, "--config.train.steps=400"], cwd=REPOSITORY, stderr=subprocess.PIPE, text=True
    )
    wait_for_file(run_directory / "metrics.jsonl", '"step": 4,', by=[process])
    process.send_signal(signal.SIGTERM)
    errors = finish(process)
    assert process.returncode == 75, errors
    names = [path.name for path in (run_directory / "checkpoints").iterdir()]
    saved = max(int(name) for name in names if name.isdigit())
    steps = saved + 2
    done = run(*words, f"--config.train.steps={steps}")
    assert done.returncode == 0, done.stderr
    assert f"training from step {saved} to {steps} in {run_directory}" in done.stderr
    assert "new faces" in done.stderr


def slurm(directory, *flags, status=0, **variables):
    """Runs the batch script outside SLURM, with stand-ins for SLURM's commands.

    They print their arguments, or the names of two nodes; srun exits with `status`.
    """
    stand_ins = {
        "srun": f'printf "%s\\n" "$@"; exit {status}',
        "scontrol": '[ "$1" = requeue ] && echo "$@" || printf "node7\\nnode8\\n"',
    }
    for name, body in stand_ins.items():
        (directory / name).write_text(f"#!/bin/sh\n{body}\n")
        (directory / name).chmod(0o755)
    return subprocess.run(
        [SLURM, *flags],
        capture_output=True, text=True, timeout=60,
        env={**os.environ, "PATH": f"{directory}:{os.environ['PATH']}", **variables},
    )  # fmt: skip


@pytest.mark.parametrize("status", [0, 2, 75])
def test_slurm_takes_the_first_node_as_coordinator_and_requeues_after_75(tmp_path, status):
    done = slurm(
        tmp_path, "--config=a b.py", SLURM_JOB_NODELIST="node[7-8]", SLURM_NTASKS="2",
        SLURM_JOB_ID="123456", SLURM_SUBMIT_DIR=str(tmp_path), JAX_COORDINATOR_PORT="5000",
        status=status,
    )  # fmt: skip
    assert done.returncode == status, done.stderr
    assert ("requeue 123456" in done.stdout) == (status == 75)
    assert "--coordinator=node7:5000" in done.stdout and "--processes=2" in done.stdout
    assert "'--config=a b.py'" in done.stdout and "--process=$SLURM_PROCID" in done.stdout


def test_slurm_outside_a_job_says_how_it_is_started(tmp_path):
    done = slurm(tmp_path, "--config=configs/celeba.py")
    assert done.returncode == 2 and "sbatch launch/slurm.sbatch" in done.stderr


def test_the_dry_run_of_slurm_shows_every_command():
    done = run(SLURM, "--dry_run", "--config=a b.py")
    assert done.returncode == 0, done.stderr
    first, second = map(shlex.split, done.stdout.splitlines())
    assert first[:-1] == ["srun", "--kill-on-bad-exit=0", "bash", "-c"]
    assert shlex.split(first[-1]) == [
        "exec", "python", "-m", "vaejax.main", "--config=a b.py",
        "--coordinator=FIRST_NODE:8476", "--processes=NODES", "--process=$SLURM_PROCID",
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
    assert {"name": "JAX_COORDINATOR_PORT", "value": "8476"} in container["env"]
    assert {"name": "VAEJAX_PORT", "value": "8477"} in container["env"]
    assert pod["terminationGracePeriodSeconds"] == 600
    assert pod["nodeSelector"]["cloud.google.com/gke-spot"] == "true"
    assert "gke-spot" not in gke("--topology=4x4", "--dry_run").stdout
    script = container["args"][0]
    assert "pip install --quiet -c launch/constraints.txt '.[tpu]'" in script
    assert any(line.startswith("gcloud storage cp launch/constraints.txt ") for line in words)
    (code,) = set(re.findall(r"\bcode/faces/[\d-]+", done.stdout))
    assert code not in gke("--topology=4x4", "--dry_run").stdout, "launches share a code directory"
    assert shlex.split(script.splitlines()[-1]) == [
        "exec", "python", "-m", "vaejax.main", "--config=a b.py", "--workdir=/bucket/runs/faces",
        "--distributed",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "--topology is missing"),
        (["--topology=16"], "--topology=16 is no shape"),
        (["--topology=2x3"], "does not divide into machines of --chips=4"),
        (["--topology=4x4", "--slices=no"], "--slices=no is no number"),
        (["--topology=4x4", "--save_minutes=x"], "--save_minutes=x is no number"),
        (["--topology=4x4", "--zone=a"], "--zone=a is no flag"),
    ],
)
def test_a_wrong_flag_of_gke_is_named(flags, message):
    done = gke(*flags)
    assert done.returncode == 2 and message in done.stderr
