"""How processes meet and fail together; each is a thread here, the sockets are real."""

import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from tiny import COMMAND_TIMEOUT, free_port

from vaejax.errors import UserError
from vaejax.meeting import Meeting
from vaejax.processes import Group

JOIN_UNDER_SLURM = """
import jax
from vaejax import processes
group = processes.start_detected(60)
assert group.agree(f"{group.index} of {jax.process_count()}") == "process 0: 0 of 2"
group.leave()
print(group.index, group.count)
"""


def meet(*members, timeout=10.0):
    """What becomes of processes given as (index, count), of whom the first coordinates."""
    coordinator = f"localhost:{free_port()}"

    def join(member):
        try:
            return Group(Meeting(coordinator, member[1], member[0], timeout))
        except UserError as error:
            return str(error)

    with ThreadPoolExecutor(len(members)) as pool:
        return list(pool.map(join, members))


def at_once(groups, function):
    """`function` of every group, all at the same time."""
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


def test_a_stranger_at_the_port_is_ignored():
    coordinator = f"localhost:{free_port()}"
    meeting = [Meeting(coordinator, 2, index, 20.0) for index in (0, 1)]
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(Group, meeting[0])
        for greeting in (b"GET / HTTP/1.1\r\n", b'{"process": 1}\n', b"[1, 2]\n", b""):
            call(meeting[0].address, greeting)
        second = pool.submit(Group, meeting[1])
        groups = [first.result(), second.result()]
    assert at_once(groups, lambda group: group.agree("")) == ["", ""]
    at_once(groups, Group.part)


def call(address, greeting):
    """Connects as anybody may, as soon as somebody listens."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            with socket.create_connection(address) as stranger:
                stranger.sendall(greeting)
                return
        except ConnectionRefusedError:
            time.sleep(0.01)
    raise AssertionError("nobody listens")


def test_slurm_brings_processes_together():
    """JAX's own detection of SLURM, in the surroundings that SLURM makes."""
    slurm = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_JOB_NODELIST": "localhost",
             "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "2",
             "SLURM_STEP_NUM_TASKS": "2"}  # fmt: skip
    members = [
        subprocess.Popen(
            [sys.executable, "-c", JOIN_UNDER_SLURM],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, **slurm, "SLURM_PROCID": index, "SLURM_LOCALID": index},
        )
        for index in ("0", "1")
    ]  # fmt: skip
    for index, member in enumerate(members):
        out, err = member.communicate(timeout=COMMAND_TIMEOUT)
        assert member.returncode == 0, err
        assert out.splitlines()[-1] == f"{index} 2"


def test_the_least_number_is_everybodys():
    groups = meet((0, 2), (1, 2))
    assert at_once(groups, lambda group: group.least(5 - group.index)) == [4, 4]
    assert at_once(groups, lambda group: group.least([None, 7][group.index])) == [None, None]
    at_once(groups, Group.part)
