"""Training with several processes: real processes and real signals on this machine.

test_processes.py tests how processes meet, agree and fail together.
"""

import contextlib
import pathlib
import random
import re
import signal
import time

import jax
import numpy as np
import pytest
import tensorstore
from commands import COMMAND_TIMEOUT, command, free_port, start
from PIL import Image
from tiny import CONFIG_FILE, LEAST, metrics
from waiting import wait_for_file

from vaejax.trained.loading import load

pytestmark = pytest.mark.slow

# Little to compile, because all processes but the first do so at each start; no fitted priors.
BRIEF = (*LEAST, "--config.prior.fitted=()")


def one_of(workdir, *flags, port, processes, index, devices=1):
    """Starts one process of a run."""
    return start(
        "main", f"--config={CONFIG_FILE}", f"--workdir={workdir}", "--start_timeout=60", *BRIEF,
        f"--coordinator=localhost:{port}", f"--processes={processes}", f"--process={index}",
        *flags, devices=devices,
    )  # fmt: skip


@contextlib.contextmanager
def pod(workdir, *flags, processes, devices=1):
    """Starts the processes of a run as a launcher does; kills them at the end of the block."""
    given = {"port": free_port(), "processes": processes, "devices": devices}
    members = [one_of(workdir, *flags, index=index, **given) for index in range(processes)]
    try:
        yield members
    finally:
        for member in members:
            member.kill()
            member.communicate()


def outcomes(members):
    """Waits for all processes; returns their output on stderr and their exit statuses."""
    errors = [member.communicate(timeout=COMMAND_TIMEOUT)[1] for member in members]
    return errors, [member.returncode for member in members]


def run_pod(workdir, *flags, processes, devices=1):
    """Trains to the last step; returns what each process printed on stderr."""
    with pod(workdir, *flags, processes=processes, devices=devices) as members:
        errors, statuses = outcomes(members)
    assert statuses == [0] * processes, errors
    return errors


def wait_for_step(workdir, step, members):
    """Waits until `members`, just started, have logged metrics, and `step` is in the log.

    The log of step 6 comes before the evaluation there, which lasts long enough for a signal.
    """
    log = pathlib.Path(workdir, "metrics.jsonl")
    before = log.read_text() if log.exists() else ""
    wait_for_file(log, f'"step": {step},', changed_from=before, by=members)


def saved_steps(workdir):
    names = [path.name for path in pathlib.Path(workdir).glob("checkpoints/*")]
    return sorted(int(name) for name in names if name.isdigit())


def assert_same_run(one, other, **tolerance):
    """Checks that two runs have the same metrics and final parameters, up to rounding."""
    for line, twin in zip(metrics(one), metrics(other), strict=True):
        assert line.keys() == twin.keys()
        for name in line:
            if isinstance(line[name], (int, str)):
                assert line[name] == twin[name], (name, line, twin)
            else:
                np.testing.assert_allclose(line[name], twin[name], rtol=1e-3, err_msg=name)
    assert_same_parameters(one, other, **(tolerance or {"rtol": 2e-4, "atol": 1e-5}))


def assert_same_parameters(one, other, **tolerance):
    params = [load(workdir, checkpoint="latest").params for workdir in (one, other)]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), *params)


@pytest.fixture(scope="module")
def single_process(tmp_path_factory):
    """Returns the work directory of a run of one process that is not interrupted."""
    workdir = tmp_path_factory.mktemp("single_process") / "run"
    done = command("main", f"--config={CONFIG_FILE}", f"--workdir={workdir}", *BRIEF)
    assert done.returncode == 0, done.stderr
    return workdir


def test_a_signal_to_one_process_stops_all_and_all_resume_from_an_undamaged_checkpoint(
    single_process, tmp_path
):
    """The parameters are sharded over all devices of two processes."""
    with pod(tmp_path, "--config.train.fsdp=4", processes=2, devices=2) as members:
        wait_for_step(tmp_path, 6, members)
        members[1].send_signal(signal.SIGTERM)
        errors, statuses = outcomes(members)
    assert statuses == [75, 75], errors
    assert saved_steps(tmp_path) == [4, 6]
    # Damage what only process 1 reads: both must resume from the checkpoint before.
    damage_part_of_device(3, tmp_path / "checkpoints" / "00000006" / "train")
    errors = run_pod(tmp_path, "--config.train.fsdp=4", processes=2, devices=2)
    assert "00000006 is damaged" in errors[0] and "training from step 4 to 12" in errors[0]
    assert "new faces" in errors[0]
    assert errors[1] == "", "a process other than 0 reports progress"
    assert_same_run(single_process, tmp_path)


def damage_part_of_device(device, item):
    """Overwrites with zeros, in a saved item, a part of an array that only `device` holds."""
    store = tensorstore.KvStore.open({"driver": "ocdbt", "base": f"file://{item}/"}).result()
    names = [name for name in store.list().result() if name.endswith(f".{device}".encode())]
    # The largest part, because OCDBT stores small values inline in the nodes of its index.
    part = max((store.read(name).result().value for name in names), key=len)
    (path,) = [path for path in item.glob("ocdbt.*/d/*") if part in path.read_bytes()]
    path.write_bytes(path.read_bytes().replace(part, bytes(len(part))))


def test_a_killed_process_is_named_and_a_run_resumes_on_other_devices(single_process, tmp_path):
    """Runs on two processes of one device, on one of four, and on two of two."""
    for victim, step in ((1, 3), (0, 6)):
        with pod(tmp_path, processes=2) as members:
            wait_for_step(tmp_path, step, members)
            if step > 4:
                wait_for_file(tmp_path / "checkpoints/00000004/_CHECKPOINT_METADATA", by=members)
            members[victim].kill()
            errors, statuses = outcomes(members)
        assert statuses[victim] == -signal.SIGKILL
        assert statuses[1 - victim] == 75, errors
        message = rf"error: process {victim} .* of 2 is gone; .* run the same command on all"
        assert re.search(message, errors[1 - victim]), errors

    flags = (f"--config={CONFIG_FILE}", f"--workdir={tmp_path}", *BRIEF)
    single = start("main", *flags, devices=4)
    wait_for_step(tmp_path, 6, [single])
    single.send_signal(signal.SIGTERM)
    (error,), statuses = outcomes([single])
    assert statuses == [75] and "training from step 4 to 12" in error, error

    errors = run_pod(tmp_path, processes=2, devices=2)
    assert "training from step 6 to 12" in errors[0]
    assert_same_run(single_process, tmp_path)


def test_an_error_of_one_process_ends_all_with_its_status(tmp_path):
    """Simulates a full disk on process 0. No process waits for the other to disconnect."""
    (tmp_path / "goodput.jsonl").symlink_to("/dev/full")
    with pod(tmp_path, processes=2) as members:
        errors, statuses = outcomes(members)
    assert statuses == [2, 2], errors
    assert "No space left on device; make room" in errors[0]
    assert re.search("error: process 0 .* of 2 is gone", errors[1])
    assert not any("Traceback" in message for message in errors)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_twenty_random_kills_lose_only_unsaved_steps(tmp_path):
    """Kills processes at random moments: while they connect, compile, train, save or evaluate."""
    flags = ("--config.train.steps=1500", "--config.train.save_every=40",
             "--config.train.eval_every=200", "--config.train.log_every=20")  # fmt: skip
    uninterrupted, killed = tmp_path / "uninterrupted", tmp_path / "killed"
    run_pod(uninterrupted, *flags, processes=2)
    rng, saved, kills = random.Random(0), 0, 0
    while kills < 20:
        with pod(killed, *flags, processes=2) as members:
            time.sleep(rng.uniform(2.0, 25.0))
            victim = rng.randrange(2)
            kills += members[victim].poll() is None
            members[victim].kill()
            errors, statuses = outcomes(members)
        if statuses == [0, 0]:
            break  # the run has finished, so there is nothing left to kill
        # 75: killed during training. 2: killed before all had connected. 0: killed after training.
        # While a library is being imported, no other Python thread runs, and JAX may notice first.
        status, message = statuses[1 - victim], errors[1 - victim]
        assert status in (75, 2, 0) or "JAX distributed service detected fatal" in message, errors
        assert "Traceback" not in message, errors
        newest = max(saved_steps(killed), default=0)
        assert newest >= saved, "a saved checkpoint is lost"
        saved = newest
    assert kills >= 10, "the run finished after too few kills"
    run_pod(killed, *flags, processes=2)
    assert metrics(uninterrupted) == metrics(killed)
    assert_same_parameters(uninterrupted, killed, rtol=0, atol=0)


def test_a_process_without_a_coordinator_names_its_address(tmp_path):
    done = command(
        "main", f"--config={CONFIG_FILE}", f"--workdir={tmp_path}", "--start_timeout=1",
        f"--coordinator=localhost:{free_port()}", "--processes=2", "--process=1",
    )  # fmt: skip
    assert done.returncode == 75
    assert re.search(r"process 0 did not answer at localhost:\d+ within 1 s", done.stderr)
    assert not any(tmp_path.iterdir()), "the work directory is not empty"


def errors_of_different_processes(workdir, *flags):
    """Starts two processes with different flags; returns their output on stderr.

    Both must exit with status 2.
    """
    port = free_port()
    members = [
        start(
            "main", f"--config={CONFIG_FILE}", f"--workdir={workdir}",
            f"--coordinator=localhost:{port}", "--processes=2", f"--process={index}", *own,
        )
        for index, own in enumerate(flags)
    ]  # fmt: skip
    errors, statuses = outcomes(members)
    assert statuses == [2, 2], errors
    return errors


def test_one_process_without_the_data_stops_all(tmp_path):
    for colour in range(4):
        Image.new("RGB", (40, 40), (colour, 9, 99)).save(tmp_path / f"{colour}.png")
    folder, missing = "--config.data.source=folder", tmp_path / "missing"
    errors = errors_of_different_processes(
        tmp_path / "run",
        (folder, f"--config.data.path={tmp_path}"),
        (folder, f"--config.data.path={missing}"),
    )
    assert re.search(f"error: process 1: .*{missing}", errors[0])
    assert re.search(f"error: (?!process).*{missing}", errors[1])


def test_one_process_with_another_setting_stops_all(tmp_path):
    different = ("--config.optimizer.learning_rate=0.5",)
    for message in errors_of_different_processes(tmp_path, (), different):
        assert "process 1 has optimizer.learning_rate=0.5, process 0 has 0.0" in message


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--coordinator=localhost:1"], "--processes and --process go together"),
        (["--distributed", "--process=0"], "leave out --coordinator, --processes and --process"),
        (["--distributed"], "finds neither Cloud TPU nor SLURM nor Kubernetes"),
    ],
)
def test_contradictory_flags_are_named(tmp_path, flags, message):
    done = command("main", f"--config={CONFIG_FILE}", f"--workdir={tmp_path}", *flags)
    assert done.returncode == 2
    assert message in done.stderr and "Traceback" not in done.stderr
