"""Connects the processes of a run by plain sockets, before JAX's own service starts.

Where a process is missing, the start can then name it; JAX would abort. The connections stay open.
"""

import queue
import socket
import time
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Any

from vaejax.errors import Absent, UserError
from vaejax.runtime.callers import Callers
from vaejax.runtime.messages import LONGEST_MESSAGE, Greeting, decode, encode
from vaejax.runtime.ports import is_port

CAUSES = "usually a machine did not start the command, or a firewall closes the port between them"

_CONNECT_SECONDS = 10.0


@dataclass(frozen=True)
class Rendezvous:
    """How the processes of a run find each other.

    Attributes:
      coordinator: HOST:PORT of process 0, by which all others reach it.
      count: number of processes.
      index: index of this process, from 0.
      timeout: seconds to wait for all processes.
    """

    coordinator: str
    count: int
    index: int
    timeout: float

    def __post_init__(self) -> None:
        """Raises UserError for an invalid address, index or number of processes."""
        host, _, port = self.coordinator.rpartition(":")
        if not host or not is_port(port):
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
        """Host and port of process 0."""
        host, _, port = self.coordinator.rpartition(":")
        return host, int(port)


def meet(rendezvous: Rendezvous) -> dict[int, "Peer"]:
    """Connects the coordinator to all other processes, and each of those to the coordinator.

    Returns:
      The connections of this process, by the index of the other one.

    Raises:
      Absent: not all processes came in time; the message names the missing ones.
      UserError: two processes have the same index or differ in the number of processes, or another
        program has the coordinator's port.
    """
    return _call(rendezvous) if rendezvous.index else _gather(rendezvous)


class Peer:
    """The connection to another process.

    Attributes:
      index: index of that process.
      host: name of its machine.
      inbox: messages that were received and not taken yet.
    """

    def __init__(self, connection: socket.socket, index: int, host: str):
        self.index, self.host = index, host
        self.inbox: queue.SimpleQueue[dict] = queue.SimpleQueue()
        self._connection, self._lines = connection, connection.makefile("rb")

    def send(self, message: dict[str, Any]) -> None:
        """Sends one message to the other process.

        Raises:
          OSError: the connection is broken.
        """
        self._connection.sendall(encode(message))

    def receive(self) -> dict[str, Any] | None:
        """Waits for the next message; returns an empty one if it is malformed.

        None means that the connection has ended, or that the time set by `keep` is over.
        """
        try:
            line = self._lines.readline(LONGEST_MESSAGE)
        except OSError:
            return None
        return decode(line) if line else None

    def close(self) -> None:
        """Closes the connection."""
        self._lines.close()
        self._connection.close()

    def keep(self, seconds: float | None = None) -> None:
        """Sets the seconds to wait for a message (default: no limit), and turns keepalive on."""
        self._connection.settimeout(seconds)
        # A machine that vanishes closes no connection: the kernel probes it, and gives up.
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (("TCP_KEEPIDLE", 20), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 4)):
            if hasattr(socket, option):
                self._connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def _gather(rendezvous: Rendezvous) -> dict[int, Peer]:
    """Does the coordinator's part: waits for all others, then lets them go on."""
    deadline = time.monotonic() + rendezvous.timeout
    peers: dict[int, Peer] = {}
    try:
        callers = Callers(rendezvous.address[1], rendezvous.count)
    except OSError as error:
        raise UserError(
            f"--coordinator={rendezvous.coordinator}: the port cannot be opened "
            f"({error.strerror}); end what has it, or choose another port for all (launch scripts "
            "take it from JAX_COORDINATOR_PORT)"
        ) from error
    with closing(callers):
        while len(peers) < rendezvous.count - 1:
            if not (call := callers.next(deadline)):
                missing = sorted(set(range(1, rendezvous.count)) - peers.keys())
                raise _refused(
                    peers,
                    f"{len(peers) + 1} of {rendezvous.count} processes came within "
                    f"{rendezvous.timeout:.0f} s; missing: {', '.join(map(str, missing))}; "
                    f"{CAUSES}",
                    Absent,
                )
            connection, greeting = call
            peer = Peer(connection, greeting.process, greeting.host)
            if greeting.processes != rendezvous.count:
                raise _refused(
                    {**peers, -1: peer},
                    f"process {peer.index} was started with --processes={greeting.processes}, "
                    f"process 0 with --processes={rendezvous.count}",
                )
            if peer.index in peers:
                raise _refused(
                    {**peers, -1: peer},
                    f"two processes, on {peers[peer.index].host} and {peer.host}, were started with"
                    f" --process={peer.index}",
                )
            peers[peer.index] = peer
    for peer in peers.values():
        # The loss of one that is gone by now is noticed as soon as it is listened to.
        with suppress(OSError):
            peer.send({"welcome": True})
        peer.keep()
    return peers


def _refused(peers: dict[int, Peer], why: str, error: type[UserError] = UserError) -> UserError:
    """Tells the others why they cannot start, and returns the error to raise here."""
    for peer in peers.values():
        with suppress(OSError):
            peer.send({"refused": why, "absent": error is Absent})
        peer.close()
    return error(why)


def _call(rendezvous: Rendezvous) -> dict[int, Peer]:
    """Does the part of all others: connects to the coordinator, and waits until all are there."""
    greeting = Greeting(rendezvous.index, rendezvous.count, socket.gethostname())
    deadline = time.monotonic() + rendezvous.timeout
    while True:
        try:
            peer = Peer(_connected(rendezvous.address, greeting), 0, "the coordinator")
            break
        except OSError as error:
            if time.monotonic() > deadline:
                raise Absent(
                    f"process 0 did not answer at {rendezvous.coordinator} within "
                    f"{rendezvous.timeout:.0f} s ({error.strerror or error}); {CAUSES}"
                ) from error
            time.sleep(0.2)
    # The coordinator's timeout may have begun later than this one.
    peer.keep(2 * rendezvous.timeout)
    match peer.receive():
        case {"welcome": True}:
            peer.keep()
            return {0: peer}
        case {"refused": str(why), "absent": bool(absent)}:
            refusal = (Absent if absent else UserError)(why)
        case None:
            refusal = Absent(f"process 0 at {rendezvous.coordinator} is gone")
        case _:
            refusal = UserError(
                f"what answers at {rendezvous.coordinator} is no process of this run; another "
                "program has that port: choose another port"
            )
    peer.close()
    raise refusal


def _connected(address: tuple[str, int], greeting: Greeting) -> socket.socket:
    """Connects to the coordinator and greets it.

    Raises:
      OSError: nothing listens there, or the connection was closed at once.
    """
    connection = socket.create_connection(address, timeout=_CONNECT_SECONDS)
    try:
        connection.sendall(greeting.line())
    except OSError:
        connection.close()
        raise
    return connection
