"""Tests of how processes connect, agree and fail together.

Most tests use a thread for each process; the sockets are real.
"""

import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress

import pytest
from commands import COMMAND_TIMEOUT, free_pair, free_port

from vaejax.errors import UserError
from vaejax.runtime import ports
from vaejax.runtime.messages import Greeting
from vaejax.runtime.processes import Group
from vaejax.runtime.rendezvous import Rendezvous

JOIN_UNDER_SLURM = """
import jax
from vaejax.errors import UserError
from vaejax.runtime import processes
from vaejax.runtime.streams import report_error
try:
    group = processes.start_detected(60)
except UserError as error:
    raise SystemExit(report_error(error))
assert group.agree(f"{group.index} of {jax.process_count()}") == "process 0: 0 of 2"
group.leave()
print(group.index, group.count)
"""

WAIT_FOR_WORDS = """
import sys
from vaejax.runtime.rendezvous import Rendezvous
from vaejax.runtime.processes import Group
Group(Rendezvous(sys.argv[1], 2, 0, 60.0)).agree("")
"""


def meet(*members, timeout=10.0):
    """Connects processes, given as (index, count); returns a `Group` or error message for each."""
    coordinator = f"localhost:{free_port()}"

    def join(member):
        try:
            return Group(Rendezvous(coordinator, member[1], member[0], timeout))
        except UserError as error:
            return str(error)

    with ThreadPoolExecutor(len(members)) as pool:
        return list(pool.map(join, members))


def at_once(groups, function):
    """Returns `function` of every group, called in concurrent threads."""
    with ThreadPoolExecutor(len(groups)) as pool:
        return list(pool.map(function, groups))


def test_all_learn_of_the_first_trouble():
    groups = meet((0, 3), (2, 3), (1, 3))
    troubles = {0: "", 1: "no data", 2: "no disk"}
    assert at_once(groups, lambda group: group.agree("")) == [""] * 3
    said = at_once(groups, lambda group: group.agree(troubles[group.index]))
    assert said == ["process 1: no data"] * 3
    at_once(groups, Group.part)


def test_a_block_fails_on_all_or_on_none():
    def block(group):
        try:
            with group.together():
                if group.index == 1:
                    raise UserError("no data")
        except UserError as error:
            return group.index, str(error)

    said = dict(at_once(meet((0, 3), (1, 3), (2, 3)), block))
    assert said == {0: "process 1: no data", 1: "no data", 2: "process 1: no data"}


def test_what_is_not_alike_is_named_on_all():
    def compare(group):
        group.check_alike({"seed": 3, "data.size": [64, 64]})
        with pytest.raises(UserError, match="process 2 has size=8, process 0 has 9; start all"):
            group.check_alike({"size": 8 if group.index == 2 else 9})

    at_once(meet((0, 3), (1, 3), (2, 3)), compare)


def test_alone_nothing_is_waited_for():
    alone = Group()
    alone.check_alike({"seed": 3})
    assert alone.agree("trouble") == "trouble"
    with pytest.raises(UserError, match=r"^no data$"), alone.together():
        raise UserError("no data")
    alone.leave()


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ([(0, 3), (1, 3), (1, 3)], "were started with --process=1"),
        ([(0, 2), (1, 4)], "--processes=4, process 0 with --processes=2"),
        ([(0, 3), (2, 3)], "2 of 3 processes came within 1 s; missing: 1"),
    ],
)
def test_all_hear_why_they_cannot_start(members, words):
    said = meet(*members, timeout=1.0)
    assert all(words in one for one in said), said


def test_strangers_at_the_port_hold_up_nobody(capsys):
    """Some connections stay open and send nothing, or a line without its end."""
    coordinator = f"localhost:{free_port()}"
    rendezvous = [Rendezvous(coordinator, 2, index, 20.0) for index in (0, 1)]
    greetings = [
        b"", b"GET / HTTP/1.1\r\n\r\n", b"[1, 2]\n", b"\xff\x00\n", b'{"process": 1}\n',
        b'{"process": true, "processes": 2, "host": "a"}\n',
        b'{"process": -1, "processes": 2, "host": "a"}\n',
        b'{"process": NaN, "processes": 2, "host": "a"}\n',
        b'{"process": [1], "processes": 2, "host": "a"}\n',
        b'{"process": 1, "processes": 2, "host": 7}\n',
        Greeting(1, 2, "a").line()[:-1],
        b"x" * 10**6,
    ]  # fmt: skip
    with ThreadPoolExecutor(2) as pool, ExitStack() as strangers:
        first = pool.submit(Group, rendezvous[0])
        for greeting in greetings:
            strangers.enter_context(call(rendezvous[0].address, greeting))
        started = time.monotonic()
        second = pool.submit(Group, rendezvous[1])
        groups = [first.result(), second.result()]
    assert time.monotonic() - started < 5.0
    assert at_once(groups, lambda group: group.agree("")) == ["", ""]
    at_once(groups, Group.part)
    told = [line for line in capsys.readouterr().err.splitlines() if "dropped a caller" in line]
    assert len(told) == 1 and "127.0.0.1" in told[0]


def test_many_idle_strangers_use_up_nothing():
    coordinator = f"localhost:{free_port()}"
    rendezvous = [Rendezvous(coordinator, 2, index, 20.0) for index in (0, 1)]
    with ThreadPoolExecutor(2) as pool, ExitStack() as strangers:
        first = pool.submit(Group, rendezvous[0])
        lines = [strangers.enter_context(call(rendezvous[0].address, b"")) for _ in range(300)]
        # The oldest connections were closed, and nothing was sent to them.
        assert lines[0].recv(1) == b""
        groups = [pool.submit(Group, rendezvous[1]).result(), first.result()]
    at_once(groups, Group.part)


def test_a_stranger_alone_is_nobody():
    """A silent connection does not count as a process, and does not extend the timeout."""
    coordinator = f"localhost:{free_port()}"
    rendezvous = Rendezvous(coordinator, 2, 0, 1.0)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(Group, rendezvous)
        with call(rendezvous.address, b""), pytest.raises(UserError, match="missing: 1"):
            first.result()


def call(address, greeting):
    """Connects as soon as the port is open, sends `greeting`, and returns the open connection."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            stranger = socket.create_connection(address, timeout=20)
        except ConnectionRefusedError:
            time.sleep(0.01)
            continue
        with suppress(OSError):  # the coordinator may close it meanwhile
            stranger.sendall(greeting)
        return stranger
    raise AssertionError("nobody listens")


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n", b"{}\n", b'{"refused": 7}\n'])
def test_another_program_in_place_of_the_coordinator_is_named(answer):
    with socket.create_server(("localhost", 0)) as server, ThreadPoolExecutor(1) as pool:
        coordinator = f"localhost:{server.getsockname()[1]}"
        second = pool.submit(Group, Rendezvous(coordinator, 2, 1, 20.0))
        with server.accept()[0] as line:
            line.sendall(answer)
            with pytest.raises(UserError, match=f"what answers at {coordinator} is no process"):
                second.result()


@pytest.mark.parametrize(
    "words",
    [
        b"{}\n", b"[1]\n", b"\xff\n", b'{"words": 7}\n', b'{"all": ["", ""]}\n',
        b'{"gone": "process 1", "status": 1e99}\n', b'{"gone": "process 1", "status": 0}\n',
        b'{"gone": "process 1", "status": 18446744073709551616}\n',
        b'{"goodbye": true, "gone": 1}\n', b"[" * 10**5 + b"\n",
    ],
)  # fmt: skip
def test_one_that_talks_nonsense_later_counts_as_gone(words):
    """Otherwise process 0 would wait for ever for the missing message."""
    coordinator = f"localhost:{free_port()}"
    process = subprocess.Popen(
        [sys.executable, "-c", WAIT_FOR_WORDS, coordinator], stderr=subprocess.PIPE, text=True
    )
    with call(Rendezvous(coordinator, 2, 1, 1.0).address, Greeting(1, 2, "node").line()) as line:
        assert line.recv(100) == b'{"welcome": true}\n'
        line.sendall(words)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 75, said
    assert "error: process 1 (node) of 2 is gone" in said and "Traceback" not in said


def slurm(port, index):
    """Starts one of two processes with the environment variables that SLURM sets."""
    surroundings = {
        "SLURM_JOB_ID": str(os.getpid()), "SLURM_JOB_NODELIST": "localhost",
        "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "2", "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_PROCID": str(index), "SLURM_LOCALID": str(index), "JAX_COORDINATOR_PORT": port,
    }  # fmt: skip
    return subprocess.Popen(
        [sys.executable, "-c", JOIN_UNDER_SLURM],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, **surroundings},
    )  # fmt: skip


def test_slurm_brings_processes_together():
    """JAX detects SLURM itself. JAX uses `port`, and vaejax the next one."""
    port = free_pair()
    members = [slurm(str(port), index) for index in (0, 1)]
    for index, member in enumerate(members):
        out, err = member.communicate(timeout=COMMAND_TIMEOUT)
        assert member.returncode == 0, err
        assert out.splitlines()[-1] == f"{index} 2"


def test_a_port_of_the_coordinator_that_is_taken_is_named():
    with socket.create_server(("", 0)) as server:
        coordinator = f"localhost:{server.getsockname()[1]}"
        with pytest.raises(UserError, match=f"{coordinator}: the port cannot .* JAX_COORDINATOR"):
            Group(Rendezvous(coordinator, 2, 0, 1.0))


@pytest.mark.parametrize("which", [0, 1])
def test_a_port_that_is_taken_is_named_with_the_remedy(which):
    """`which` is 0 for the port of JAX, and 1 for the next one, that of vaejax."""
    port = free_pair()
    with socket.create_server(("", port + which)):
        member = slurm(str(port), 0)
        _, err = member.communicate(timeout=COMMAND_TIMEOUT)
    assert member.returncode == 2, err
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    variable = ("JAX_COORDINATOR_PORT", "VAEJAX_PORT")[which]
    assert f"port {port + which} of " in line and f"set {variable} to another" in line


def test_the_ports_are_fixed(monkeypatch):
    monkeypatch.setenv("SLURM_PROCID", "1")  # only process 0 checks that the ports are free
    for name in ("JAX_COORDINATOR_PORT", "VAEJAX_PORT"):
        monkeypatch.setenv(name, "")  # else the value that `choose_port` sets would stay
    assert ports.choose_port() == 8477 and os.environ["JAX_COORDINATOR_PORT"] == "8476"
    monkeypatch.setenv("JAX_COORDINATOR_PORT", "5000")
    assert ports.choose_port() == 5001 and os.environ["JAX_COORDINATOR_PORT"] == "5000"
    monkeypatch.setenv("VAEJAX_PORT", "8474")
    assert ports.choose_port() == 8474 and os.environ["JAX_COORDINATOR_PORT"] == "5000"


@pytest.mark.parametrize("words", ["no", "0", "65536", "-1", "8476.0", "²"])
@pytest.mark.parametrize("variable", ["JAX_COORDINATOR_PORT", "VAEJAX_PORT"])
def test_what_is_no_port_is_named(monkeypatch, variable, words):
    monkeypatch.setenv(variable, words)
    with pytest.raises(UserError, match=f"{variable}={words} is no port"):
        ports.choose_port()


def test_one_port_is_not_enough(monkeypatch):
    monkeypatch.setenv("JAX_COORDINATOR_PORT", "8477")
    monkeypatch.setenv("VAEJAX_PORT", "8477")
    with pytest.raises(UserError, match="VAEJAX_PORT=8477 is JAX_COORDINATOR_PORT too"):
        ports.choose_port()


def test_the_least_number_is_everybodys():
    groups = meet((0, 2), (1, 2))
    assert at_once(groups, lambda group: group.least(5 - group.index)) == [4, 4]
    assert at_once(groups, lambda group: group.least([None, 7][group.index])) == [None, None]
    at_once(groups, Group.part)
