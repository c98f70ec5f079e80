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

from vaejax.errors import Absent, UserError
from vaejax.runtime import callers
from vaejax.runtime.messages import Greeting, decode, is_known
from vaejax.runtime.processes import Group
from vaejax.runtime.rendezvous import Rendezvous

JOIN_UNDER_SLURM = """
import jax
from vaejax.runtime import processes
group = processes.start_detected(60)
assert group.agree(f"{group.index} of {jax.process_count()}") == "process 0: 0 of 2"
group.leave()
print(group.index, group.count)
"""

WAIT_FOR_MESSAGE = """
import sys
from vaejax.runtime.rendezvous import Rendezvous
from vaejax.runtime.processes import Group
Group(Rendezvous(sys.argv[1], 2, 0, 60.0)).agree("")
"""


def meet(*members, timeout=10.0):
    """Connects processes, given as (index, count); returns a `Group` or error for each."""
    coordinator = f"localhost:{free_port()}"

    def join(member):
        try:
            return Group(Rendezvous(coordinator, member[1], member[0], timeout))
        except UserError as error:
            return error

    with ThreadPoolExecutor(len(members)) as pool:
        return list(pool.map(join, members))


def in_threads(groups, function):
    """Returns `function` of every group, called in concurrent threads."""
    with ThreadPoolExecutor(len(groups)) as pool:
        return list(pool.map(function, groups))


def test_all_processes_agree_on_the_first_trouble():
    groups = meet((0, 3), (2, 3), (1, 3))
    troubles = {0: "", 1: "no data", 2: "no disk"}
    assert in_threads(groups, lambda group: group.agree("")) == [""] * 3
    agreed = in_threads(groups, lambda group: group.agree(troubles[group.index]))
    assert agreed == ["process 1: no data"] * 3
    in_threads(groups, Group.part)


def test_a_block_that_fails_on_one_process_fails_on_all():
    def block(group):
        try:
            with group.together():
                if group.index == 1:
                    raise UserError("no data")
        except UserError as error:
            return group.index, str(error)

    errors = dict(in_threads(meet((0, 3), (1, 3), (2, 3)), block))
    assert errors == {0: "process 1: no data", 1: "no data", 2: "process 1: no data"}


def test_a_value_that_differs_is_named_on_all_processes():
    def compare(group):
        group.check_alike({"seed": 3, "data.size": [64, 64]})
        with pytest.raises(UserError, match="process 2 has size=8, process 0 has 9; start all"):
            group.check_alike({"size": 8 if group.index == 2 else 9})

    in_threads(meet((0, 3), (1, 3), (2, 3)), compare)


def test_a_single_process_waits_for_no_other():
    single = Group()
    single.check_alike({"seed": 3})
    assert single.agree("trouble") == "trouble"
    assert single.least(5) == 5 and single.least(None) is None
    with pytest.raises(UserError, match=r"^no data$"), single.together():
        raise UserError("no data")
    single.leave()


@pytest.mark.parametrize(
    ("members", "kind", "message"),
    [
        ([(0, 3), (1, 3), (1, 3)], UserError, "were started with --process=1"),
        ([(0, 2), (1, 4)], UserError, "--processes=4, process 0 with --processes=2"),
        ([(0, 3), (2, 3)], Absent, "2 of 3 processes came within 1 s; missing: 1"),
        ([(1, 3)], Absent, "process 0 did not answer at"),
    ],
)
def test_all_processes_raise_the_reason_why_they_cannot_start(members, kind, message):
    errors = meet(*members, timeout=1.0)
    assert all(type(error) is kind and message in str(error) for error in errors), errors


@pytest.mark.parametrize(
    ("coordinator", "index", "message"),
    [
        ("here", 0, "--coordinator=here is no address"),
        (":8476", 0, "is no address"),
        ("here:²", 0, "--coordinator=here:² is no address"),
        ("here:8476", 2, "--process=2 is none of --processes=2; they count from 0"),
    ],
)
def test_an_invalid_address_or_index_is_named(coordinator, index, message):
    with pytest.raises(UserError, match=message):
        Rendezvous(coordinator, 2, index, 1.0)


def test_connections_of_other_programs_delay_no_process(capsys):
    """Some connections stay open and send nothing, or a line without its end.

    The processes wait less than the 10 s for which each of these connections is kept.
    """
    coordinator = f"localhost:{free_port()}"
    rendezvous = [Rendezvous(coordinator, 2, index, 9.0) for index in (0, 1)]
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
    with ThreadPoolExecutor(2) as pool, ExitStack() as connections:
        first = pool.submit(Group, rendezvous[0])
        for greeting in greetings:
            connections.enter_context(connect(rendezvous[0].address, greeting))
        second = pool.submit(Group, rendezvous[1])
        groups = [first.result(), second.result()]
    assert in_threads(groups, lambda group: group.agree("")) == ["", ""]
    in_threads(groups, Group.part)
    messages = capsys.readouterr().err.splitlines()
    dropped = [line for line in messages if "dropped a caller" in line]
    assert len(dropped) == 1 and "127.0.0.1" in dropped[0]


def test_the_oldest_of_many_silent_connections_are_closed():
    coordinator = f"localhost:{free_port()}"
    rendezvous = [Rendezvous(coordinator, 2, index, 20.0) for index in (0, 1)]
    with ThreadPoolExecutor(2) as pool, ExitStack() as connections:
        first = pool.submit(Group, rendezvous[0])
        silent = [
            connections.enter_context(connect(rendezvous[0].address, b"")) for _ in range(300)
        ]
        assert silent[0].recv(1) == b"", "it is closed, and nothing was sent to it"
        groups = [pool.submit(Group, rendezvous[1]).result(), first.result()]
    in_threads(groups, Group.part)


def test_a_silent_connection_is_closed_when_its_time_is_over(monkeypatch):
    monkeypatch.setattr(callers, "_GREETING_SECONDS", 0.05)
    coordinator = f"localhost:{free_port()}"
    rendezvous = [Rendezvous(coordinator, 2, index, 20.0) for index in (0, 1)]
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(Group, rendezvous[0])
        with connect(rendezvous[0].address, b"") as silent:
            assert silent.recv(1) == b""
        groups = [pool.submit(Group, rendezvous[1]).result(), first.result()]
    in_threads(groups, Group.part)


def test_a_silent_connection_counts_as_no_process():
    """It does not extend the timeout either."""
    coordinator = f"localhost:{free_port()}"
    rendezvous = Rendezvous(coordinator, 2, 0, 1.0)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(Group, rendezvous)
        with connect(rendezvous.address, b""), pytest.raises(UserError, match="missing: 1"):
            first.result()


def connect(address, greeting):
    """Connects as soon as the port is open, sends `greeting`, and returns the open connection."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            connection = socket.create_connection(address, timeout=20)
        except ConnectionRefusedError:
            time.sleep(0.01)
            continue
        with suppress(OSError):  # the coordinator may close it meanwhile
            connection.sendall(greeting)
        return connection
    raise AssertionError(f"{address} is not open")


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n", b"{}\n", b'{"refused": 7}\n'])
def test_another_program_at_the_port_of_the_coordinator_is_named(answer):
    with socket.create_server(("localhost", 0)) as server, ThreadPoolExecutor(1) as pool:
        coordinator = f"localhost:{server.getsockname()[1]}"
        second = pool.submit(Group, Rendezvous(coordinator, 2, 1, 20.0))
        with server.accept()[0] as connection:
            connection.sendall(answer)
            with pytest.raises(UserError, match=f"what answers at {coordinator} is no process"):
                second.result()


MALFORMED = [
    b"{}\n", b"[1]\n", b"\xff\n", b'{"words": 7}\n', b'{"all": ["", ""]}\n', b'{"words": "a"}',
    b'{"gone": "process 1", "status": 1e99}\n', b'{"gone": "process 1", "status": 0}\n',
    b'{"gone": "process 1", "status": 18446744073709551616}\n',
    b'{"goodbye": true, "gone": 1}\n', b"[" * 10**5 + b"\n",
]  # fmt: skip


@pytest.mark.parametrize("line", MALFORMED, ids=lambda line: repr(line[:40]))
def test_a_malformed_line_to_process_0_is_not_known(line):
    assert not is_known(decode(line), 2, to_coordinator=True)


def test_a_process_that_sends_a_malformed_line_counts_as_gone():
    """Otherwise process 0 would wait for ever for the missing message."""
    coordinator = f"localhost:{free_port()}"
    process = subprocess.Popen(
        [sys.executable, "-c", WAIT_FOR_MESSAGE, coordinator], stderr=subprocess.PIPE, text=True
    )
    address = Rendezvous(coordinator, 2, 1, 1.0).address
    with connect(address, Greeting(1, 2, "node").line()) as connection:
        assert connection.recv(100) == b'{"welcome": true}\n'
        connection.sendall(MALFORMED[0])
        _, errors = process.communicate(timeout=COMMAND_TIMEOUT)
    assert process.returncode == 75, errors
    assert "error: process 1 (node) of 2 is gone" in errors and "Traceback" not in errors


def slurm(port, index):
    """Starts one of two processes with the environment variables that SLURM sets."""
    variables = {
        "SLURM_JOB_ID": str(os.getpid()), "SLURM_JOB_NODELIST": "localhost",
        "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "2", "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_PROCID": str(index), "SLURM_LOCALID": str(index), "JAX_COORDINATOR_PORT": port,
    }  # fmt: skip
    return subprocess.Popen(
        [sys.executable, "-c", JOIN_UNDER_SLURM],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, **variables},
    )  # fmt: skip


def test_processes_that_slurm_starts_meet():
    """JAX detects SLURM itself. JAX uses `port`, and vaejax the next one."""
    port = free_pair()
    members = [slurm(str(port), index) for index in (0, 1)]
    for index, member in enumerate(members):
        out, err = member.communicate(timeout=COMMAND_TIMEOUT)
        assert member.returncode == 0, err
        assert out.splitlines()[-1] == f"{index} 2"


def test_a_taken_port_of_the_coordinator_is_named():
    with socket.create_server(("", 0)) as server:
        coordinator = f"localhost:{server.getsockname()[1]}"
        with pytest.raises(UserError, match=f"{coordinator}: the port cannot .* JAX_COORDINATOR"):
            Group(Rendezvous(coordinator, 2, 0, 1.0))


def test_all_processes_get_the_least_number():
    groups = meet((0, 2), (1, 2))
    assert in_threads(groups, lambda group: group.least(5 - group.index)) == [4, 4]
    assert in_threads(groups, lambda group: group.least([None, 7][group.index])) == [None, None]
    in_threads(groups, Group.part)
