"""Training with several processes: real processes and real signals on this machine."""

import contextlib
import itertools
import pathlib
import random
import re
import signal
import socket
import threading
import time

import numpy as np
import pytest
import tensorstore
from commands import COMMAND_TIMEOUT, command, free_port, start
from PIL import Image
from tiny import CONFIG_FILE, LEAST, metrics

from vaejax.trained.loading import load

pytestmark = pytest.mark.slow

# Little to compile, because all processes but the first do so at each start; no fitted priors.
BRIEF = (*LEAST, "--config.prior.fitted=()", "--config.train.eval_every=12")


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


def ends(members):
    """Waits for all processes; returns their output on stderr and their exit statuses."""
    said = [member.communicate(timeout=COMMAND_TIMEOUT)[1] for member in members]
    return said, [member.returncode for member in members]


def run_pod(workdir, *flags, processes, devices=1):
    with pod(workdir, *flags, processes=processes, devices=devices) as members:
        said, statuses = ends(members)
    assert statuses == [0] * processes, said
    return said


def wait_for_step(workdir, step, members):
    """Waits until `members`, just started, have logged metrics, and `step` is in the log."""
    deadline = time.monotonic() + COMMAND_TIMEOUT
    path = pathlib.Path(workdir, "metrics.jsonl")
    before = log = path.read_text() if path.exists() else ""
    while log == before or f'"step": {step},' not in log:
        log = path.read_text() if path.exists() else ""
        assert time.monotonic() < deadline
        assert all(member.poll() is None for member in members), ends(members)
        time.sleep(0.02)


def assert_same_run(one, other, **tolerance):
    """Checks that two runs have the same metrics and final parameters, up to rounding."""
    tolerance = tolerance or {"rtol": 2e-4, "atol": 1e-5}
    for line, twin in zip(metrics(one), metrics(other), strict=True):
        assert line.keys() == twin.keys()
        for name in ("elbo_bits_per_dim", "kl_nats", "psnr_pooled"):
            if name in line:
                np.testing.assert_allclose(line[name], twin[name], rtol=1e-3, err_msg=name)
    assert_same_parameters(one, other, **tolerance)


def assert_same_parameters(one, other, **tolerance):
    import jax

    params = [load(workdir, checkpoint="latest").params for workdir in (one, other)]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), *params)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A run of one process that is not interrupted."""
    workdir = tmp_path_factory.mktemp("alone") / "run"
    done = command("main", f"--config={CONFIG_FILE}", f"--workdir={workdir}", *BRIEF)
    assert done.returncode == 0, done.stderr
    return workdir


def test_several_processes_train_as_one(alone, tmp_path):
    said = run_pod(tmp_path, "--config.train.fsdp=4", processes=2, devices=2)
    assert_same_run(alone, tmp_path)
    assert "new faces" in said[0]
    assert all("step" not in words for words in said[1:]), "a process other than 0 reports progress"

    # Damage what only process 1 reads: both must resume from the checkpoint before.
    damage_part_of_device(3, tmp_path / "checkpoints" / "00000012" / "train")
    said = run_pod(tmp_path, "--config.train.fsdp=4", processes=2, devices=2)
    assert "00000012 is damaged" in said[0] and "training from step 8 to 12" in said[0]
    assert_same_run(alone, tmp_path)


def damage_part_of_device(device, item):
    """Overwrites with zeros, in a saved item, a part of an array that only `device` holds."""
    store = tensorstore.KvStore.open({"driver": "ocdbt", "base": f"file://{item}/"}).result()
    names = [name for name in store.list().result() if name.endswith(f".{device}".encode())]
    # The largest part, because OCDBT stores small values inline in the nodes of its index.
    part = max((store.read(name).result().value for name in names), key=len)
    (path,) = [path for path in item.glob("ocdbt.*/d/*") if part in path.read_bytes()]
    path.write_bytes(path.read_bytes().replace(part, bytes(len(part))))


def test_a_signal_to_one_stops_all_and_other_devices_go_on(alone, tmp_path):
    """Runs on two processes of two devices, then on one of four, then on four of one (fsdp=4)."""
    with pod(tmp_path, processes=2, devices=2) as members:
        wait_for_step(tmp_path, 3, members)
        members[1].send_signal(signal.SIGTERM)
        said, statuses = ends(members)
    assert statuses == [75, 75], said
    saved = [int(path.name) for path in (tmp_path / "checkpoints").glob("[0-9]*")]
    assert max(saved) >= 3

    flags = (f"--config={CONFIG_FILE}", f"--workdir={tmp_path}", *BRIEF)
    lonely = start("main", *flags, devices=4)
    wait_for_step(tmp_path, 6, [lonely])
    lonely.send_signal(signal.SIGTERM)
    said, statuses = ends([lonely])
    assert statuses[0] in (75, 0), said

    run_pod(tmp_path, "--config.train.fsdp=4", processes=4)
    assert_same_run(alone, tmp_path)


def test_the_others_say_who_was_killed_and_the_next_start_goes_on(alone, tmp_path):
    for victim, step in ((1, 3), (0, 6)):
        with pod(tmp_path, processes=2) as members:
            wait_for_step(tmp_path, step, members)
            members[victim].kill()
            said, statuses = ends(members)
        assert statuses.pop(victim) == -signal.SIGKILL
        assert set(statuses) == {75}, said
        said.pop(victim)
        assert all(re.search(rf"error: process {victim} .* is gone", words) for words in said), said
    run_pod(tmp_path, processes=2)
    assert_same_run(alone, tmp_path)


@contextlib.contextmanager
def port_scanner(port):
    """Connects to a port again and again, and sends nothing or an invalid greeting.

    Yields the list of its connections, which stay open.
    """
    words = (b"", b"GET / HTTP/1.0\r\n\r\n", b"\x16\x03\x01\x00\n", b"x" * 10**5,
             b'{"process": true, "processes": 2, "host": "scanner"}\n')  # fmt: skip
    connected, over = [], threading.Event()

    def scan():
        for greeting in itertools.cycle(words):
            with contextlib.suppress(OSError):
                connected.append(socket.create_connection(("localhost", port), timeout=5))
                connected[-1].sendall(greeting)
            if over.wait(0.1):
                return

    scanner = threading.Thread(target=scan)
    scanner.start()
    try:
        yield connected
    finally:
        over.set()
        scanner.join()
        for connection in connected:
            connection.close()


def test_a_port_scanner_does_not_keep_them_apart(tmp_path):
    given = {"port": free_port(), "processes": 2}
    members = [one_of(tmp_path, "--config.train.steps=2", index=0, **given)]
    with port_scanner(given["port"]) as connected:
        while len(connected) < 10:  # process 0 waits for process 1
            assert members[0].poll() is None, ends(members)
            time.sleep(0.05)
        members.append(one_of(tmp_path, "--config.train.steps=2", index=1, **given))
        said, statuses = ends(members)
    assert statuses == [0, 0], said
    assert said[0].count("dropped a caller from 127.0.0.1") == 1


def test_what_fails_on_one_process_ends_all_with_its_status(tmp_path):
    """Simulates a full disk on process 0. No process waits for the other to disconnect."""
    (tmp_path / "goodput.jsonl").symlink_to("/dev/full")
    with pod(tmp_path, processes=2) as members:
        said, statuses = ends(members)
    assert statuses == [2, 2], said
    assert "No space left on device; make room" in said[0]
    assert re.search("error: process 0 .* of 2 is gone", said[1])
    assert not any("Traceback" in words for words in said)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_twenty_random_kills_lose_nothing_but_unsaved_steps(tmp_path):
    """Kills processes at random moments: while they connect, compile, train, save or evaluate."""
    flags = ("--config.train.steps=1500", "--config.train.save_every=40",
             "--config.train.eval_every=200", "--config.train.log_every=20")  # fmt: skip
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    run_pod(whole, *flags, processes=2)
    rng, saved, kills = random.Random(0), 0, 0
    while kills < 20:
        with pod(torn, *flags, processes=2) as members:
            time.sleep(rng.uniform(2.0, 25.0))
            victim = rng.randrange(2)
            kills += members[victim].poll() is None
            members[victim].kill()
            said, statuses = ends(members)
        if statuses == [0, 0]:
            break  # the run has finished, so there is nothing left to kill
        # 75: killed during training. 2: killed before all had connected. 0: killed after training.
        # While a library is being imported, no other Python thread runs, and JAX may notice first.
        other, words = statuses[1 - victim], said[1 - victim]
        assert other in (75, 2, 0) or "JAX distributed service detected fatal" in words, said
        assert "Traceback" not in words, said
        steps = [int(path.name) for path in torn.glob("checkpoints/[0-9]*") if path.name.isdigit()]
        assert max(steps, default=0) >= saved, "a saved checkpoint is lost"
        saved = max(steps, default=0)
    assert kills >= 10, "the run finished after too few kills"
    run_pod(torn, *flags, processes=2)
    assert metrics(whole) == metrics(torn)
    assert_same_parameters(whole, torn, rtol=0, atol=0)


def test_a_start_that_lacks_somebody_names_them(tmp_path):
    given = {"port": free_port(), "processes": 3}
    members = [one_of(tmp_path, "--start_timeout=4", index=index, **given) for index in (0, 2)]
    said, statuses = ends(members)
    assert statuses == [75, 75]
    for words in said:
        assert "2 of 3 processes came within 4 s; missing: 1" in words
    assert not any(tmp_path.iterdir()), "the work directory is not empty"


def test_without_a_coordinator_its_address_is_named(tmp_path):
    done = command(
        "main", f"--config={CONFIG_FILE}", f"--workdir={tmp_path}", "--start_timeout=1",
        f"--coordinator=localhost:{free_port()}", "--processes=2", "--process=1",
    )  # fmt: skip
    assert done.returncode == 75
    assert re.search(r"process 0 did not answer at localhost:\d+ within 1 s", done.stderr)


def unlike(workdir, *flags):
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
    said, statuses = ends(members)
    assert statuses == [2, 2], said
    return said


def test_one_process_without_the_data_stops_all(tmp_path):
    for colour in range(4):
        Image.new("RGB", (40, 40), (colour, 9, 99)).save(tmp_path / f"{colour}.png")
    folder = "--config.data.source=folder"
    said = unlike(tmp_path / "run", (folder, f"--config.data.path={tmp_path}"),
                  (folder, f"--config.data.path={tmp_path / 'none'}"))  # fmt: skip
    assert "error: process 1: " in said[0] and "none" in said[0]
    assert "none" in said[1]


def test_one_process_with_another_setting_stops_all(tmp_path):
    for words in unlike(tmp_path, (), ("--config.optimizer.learning_rate=0.5",)):
        assert "process 1 has optimizer.learning_rate=0.5, process 0 has 0.0" in words


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--coordinator=localhost:1"], "--processes and --process go together"),
        (["--coordinator=here", "--processes=2", "--process=0"], "is no address"),
        (["--coordinator=here:²", "--processes=2", "--process=0"], "is no address"),
        (["--coordinator=a:1", "--processes=2", "--process=2"], "they count from 0"),
        (["--distributed"], "finds neither Cloud TPU nor SLURM nor Kubernetes"),
    ],
)
def test_wrong_flags_are_named(tmp_path, flags, words):
    done = command("main", f"--config={CONFIG_FILE}", f"--workdir={tmp_path}", *flags)
    assert done.returncode == 2
    assert words in done.stderr and "Traceback" not in done.stderr
