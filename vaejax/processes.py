"""The processes of one run: how they meet, fail together, and notice that one is gone.

They meet at the coordinator by plain sockets before JAX's own service starts: a start that lacks
somebody can then say who it is, where JAX aborts. The connections stay open. One that closes
without a good-bye tells at once who died, where JAX waits for a heartbeat that does not come.
"""

import json
import os
import queue
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import jax
import numpy as np
from jax.experimental import multihost_utils

from vaejax.errors import UserError
from vaejax.signals import interrupt_on_signal

# The status of a process that stops because another is gone, as when it was asked to stop.
TRY_AGAIN = 75

_GREETING_SECONDS = 10.0
_NEWS_SECONDS = 5.0
_GOODBYE = {"goodbye": True}
_CAUSES = "usually a machine did not start the command, or a firewall closes the port between them"


@dataclass(frozen=True)
class Meeting:
    """Where the processes of a run meet.

    Attributes:
      coordinator: HOST:PORT of process 0, where all others reach it.
      count: of processes.
      index: of this process, from 0.
      timeout: seconds to wait for all.
    """

    coordinator: str
    count: int
    index: int
    timeout: float

    def __post_init__(self) -> None:
        """Raises UserError for what cannot be."""
        host, _, port = self.coordinator.rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 2**16:
            raise UserError(
                f"--coordinator={self.coordinator} is no address; write HOST:PORT, such as "
                "10.0.0.2:8476"
            )
        if not 0 <= self.index < self.count:
            raise UserError(
                f"--process={self.index} is none of --processes={self.count}; they count from 0"
            )

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        host, _, port = self.coordinator.rpartition(":")
        return host, int(port)


def start(meeting: Meeting) -> "Group":
    """Meets the other processes and makes their devices one; before JAX is asked for a device.

    Raises:
      UserError: not all came in time; it names who is missing.
    """
    group = Group(meeting)
    jax.distributed.initialize(
        meeting.coordinator,
        num_processes=meeting.count,
        process_id=meeting.index,
        initialization_timeout=round(meeting.timeout),
    )
    interrupt_on_signal()  # JAX has taken SIGTERM for itself
    return group


def start_detected(timeout: float) -> "Group":
    """The same where JAX finds the others by itself: Cloud TPU, SLURM, Kubernetes.

    Raises:
      UserError: JAX finds no such surroundings.
    """
    # JAX aborts when its time is over: what may be the cause has to be said before.
    alarm = threading.Timer(
        timeout,
        _leave_at_once,
        [f"error: the processes did not find each other within {timeout:.0f} s; {_CAUSES}", 2],
    )
    alarm.daemon = True
    alarm.start()
    try:
        jax.distributed.initialize(initialization_timeout=round(timeout) + 60)
    except ValueError as error:
        raise UserError(
            "--distributed finds neither Cloud TPU nor SLURM nor Kubernetes here; name "
            "--coordinator=HOST:PORT --processes=N --process=I instead"
        ) from error
    finally:
        alarm.cancel()
    interrupt_on_signal()  # JAX has taken SIGTERM for itself
    address = np.array([*map(int, _own_address().split(".")), _free_port()], np.int32)
    *host, port = multihost_utils.broadcast_one_to_all(address).tolist()
    coordinator = f"{'.'.join(map(str, host))}:{port}"
    return Group(Meeting(coordinator, jax.process_count(), jax.process_index(), timeout))


class Group:
    """The processes of a run, seen from one of them.

    Attributes:
      index: of this process.
      count: of all.
    """

    def __init__(self, meeting: Meeting | None = None):
        """Meets the others; alone without a meeting."""
        self.index, self.count, self._peers = 0, 1, {}
        if meeting:
            self.index, self.count = meeting.index, meeting.count
            self._peers = _call(meeting) if meeting.index else _gather(meeting)
        self._listeners = [
            threading.Thread(target=self._listen, args=(peer,), daemon=True)
            for peer in self._peers.values()
        ]
        for listener in self._listeners:
            listener.start()

    @contextmanager
    def together(self) -> Iterator[None]:
        """What stands in this block succeeds on all processes, or fails on all.

        Raises:
          UserError: with the words of the first process that failed.
        """
        trouble = None
        try:
            yield
        except UserError as error:
            trouble = error
        if common := self.agree(str(trouble) if trouble else ""):
            self.part()
            raise trouble or UserError(common)

    def agree(self, trouble: str) -> str:
        """What is the trouble with the first process that has any; empty if none has.

        All wait here for each other.

        Args:
          trouble: of this process, or empty.
        """
        if self.count == 1:
            return trouble
        said = self._exchange(trouble)
        return next((f"process {i}: {words}" for i, words in enumerate(said) if words), "")

    def least(self, number: int | None) -> int | None:
        """The smallest of every process's number; None if one has none. All wait for each other."""
        said = self._exchange(json.dumps(number)) if self.count > 1 else [json.dumps(number)]
        numbers = [json.loads(words) for words in said]
        return None if None in numbers else min(numbers)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Around what breaks when another process is gone: the news of it ends this one first."""
        try:
            yield
        # Gloo, which joins CPUs, says with a ValueError that a peer closed its connection.
        except (jax.errors.JaxRuntimeError, ValueError):
            if self._peers:
                time.sleep(_NEWS_SECONDS)
            raise

    def leave(self) -> None:
        """Ends what they do together, for all at once; then each is on its own."""
        if self.count > 1:
            self._exchange("")
            jax.distributed.shutdown()
            self.part()

    def part(self) -> None:
        """Says good-bye to the others, who all do so now; from here on nobody is missed."""
        for peer in self._peers.values():
            with suppress(OSError):
                peer.send(_GOODBYE)
        for listener in self._listeners:
            listener.join()
        for peer in self._peers.values():
            peer.close()

    def _exchange(self, words: str) -> list[str]:
        """What every process says, in their order; waits for all."""
        if self.index:
            self._peers[0].send({"words": words})
            return self._peers[0].inbox.get()["all"]
        said = [words] + [self._peers[i].inbox.get()["words"] for i in range(1, self.count)]
        for peer in self._peers.values():
            peer.send({"all": said})
        return said

    def _listen(self, peer: "_Peer") -> None:
        while (message := peer.receive()) != _GOODBYE:
            gone = f"process {peer.index} ({peer.host})" if message is None else message.get("gone")
            if gone:
                for other in self._peers.values():
                    with suppress(OSError):
                        other.send({"gone": gone})
                words = (
                    f"error: {gone} of {self.count} is gone, see its own words; run the same "
                    "command on all to go on from the newest checkpoint"
                )
                # The others stop with the coordinator, and shall have heard why.
                _leave_at_once(words, TRY_AGAIN, after=0.0 if self.index else 0.5)
            peer.inbox.put(message)


ALONE = Group()


class _Peer:
    """The line to another process."""

    def __init__(self, connection: socket.socket):
        # The greeting has to come soon: anything may call at an open port.
        connection.settimeout(_GREETING_SECONDS)
        self.index, self.host = 0, "the coordinator"
        self.inbox: queue.SimpleQueue[dict] = queue.SimpleQueue()
        self._connection, self._lines = connection, connection.makefile("r", encoding="utf-8")

    def send(self, message: dict) -> None:
        self._connection.sendall(json.dumps(message).encode() + b"\n")

    def receive(self) -> dict | None:
        """The next message; None at the end of the line."""
        try:
            message = json.loads(self._lines.readline() or "null")
        except (OSError, ValueError):
            return None
        return message if isinstance(message, dict) else None

    def close(self) -> None:
        """Lets go of the line."""
        self._lines.close()
        self._connection.close()

    def keep(self, seconds: float | None = None) -> None:
        """Waits longer than for a greeting, without an end by default."""
        self._connection.settimeout(seconds)
        # A machine that vanishes closes nothing: the kernel asks after it, and gives up.
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (("TCP_KEEPIDLE", 20), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 4)):
            if hasattr(socket, option):
                self._connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def _gather(meeting: Meeting) -> dict[int, _Peer]:
    """The coordinator's part: waits for all others, then lets them go on."""
    deadline = time.monotonic() + meeting.timeout
    peers: dict[int, _Peer] = {}
    try:
        server = socket.create_server(("", meeting.address[1]), backlog=meeting.count)
    except OSError as error:
        raise UserError(
            f"--coordinator={meeting.coordinator}: the port cannot be opened ({error.strerror}); "
            "choose another"
        ) from error
    with server:
        while len(peers) < meeting.count - 1:
            server.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                peer = _Peer(server.accept()[0])
            except TimeoutError:
                missing = sorted(set(range(1, meeting.count)) - peers.keys())
                raise _refused(
                    peers,
                    f"{len(peers) + 1} of {meeting.count} processes came within "
                    f"{meeting.timeout:.0f} s; missing: {', '.join(map(str, missing))}; {_CAUSES}",
                ) from None
            greeting = peer.receive() or {}
            if not {"process", "processes", "host"} <= greeting.keys():
                peer.close()
                continue
            peer.index, peer.host = greeting["process"], greeting["host"]
            others = {**peers, peer.index: peer}
            if greeting["processes"] != meeting.count:
                raise _refused(
                    others,
                    f"process {peer.index} was started with --processes={greeting['processes']}, "
                    f"process 0 with --processes={meeting.count}",
                )
            if peer.index in peers:
                raise _refused(
                    {**peers, -1: peer},
                    f"two processes, on {peers[peer.index].host} and {peer.host}, were started with"
                    f" --process={peer.index}",
                )
            peers = others
    for peer in peers.values():
        peer.send({"welcome": True})
        peer.keep()
    return peers


def _refused(peers: dict[int, _Peer], why: str) -> UserError:
    """Tells the others why they cannot start."""
    for peer in peers.values():
        with suppress(OSError):
            peer.send({"refused": why})
        peer.close()
    return UserError(why)


def _call(meeting: Meeting) -> dict[int, _Peer]:
    """The part of all others: finds the coordinator and waits until everybody is there."""
    deadline = time.monotonic() + meeting.timeout
    while True:
        try:
            peer = _Peer(socket.create_connection(meeting.address, timeout=_GREETING_SECONDS))
            break
        except OSError as error:
            if time.monotonic() > deadline:
                raise UserError(
                    f"process 0 did not answer at {meeting.coordinator} within "
                    f"{meeting.timeout:.0f} s ({error.strerror or error}); {_CAUSES}"
                ) from error
            time.sleep(0.2)
    # The coordinator's clock may have started later than this one.
    peer.keep(2 * meeting.timeout)
    greeting = {"process": meeting.index, "processes": meeting.count}
    peer.send({**greeting, "host": socket.gethostname()})
    answer = peer.receive() or {"refused": f"process 0 at {meeting.coordinator} is gone"}
    if "refused" in answer:
        peer.close()
        raise UserError(answer["refused"])
    peer.keep()
    return {0: peer}


def _own_address() -> str:
    """The address of this machine that others see."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # Nothing is sent: the kernel only chooses the interface that leads outside.
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.1"
        return probe.getsockname()[0]


def _free_port() -> int:
    with socket.create_server(("", 0)) as server:
        return server.getsockname()[1]


def _leave_at_once(words: str, status: int, after: float = 0.0) -> None:
    """Ends the process from a thread: the main one waits for somebody who will not come."""
    os.write(2, f"\n{words}\n".encode())
    time.sleep(after)
    os._exit(status)
