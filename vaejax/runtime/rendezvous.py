"""How the processes of a run meet: by plain sockets, before JAX's own service starts.

A start that lacks somebody can then say who it is, where JAX aborts. The lines stay open.
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

CAUSES = "usually a machine did not start the command, or a firewall closes the port between them"

_CONNECT_SECONDS = 10.0


@dataclass(frozen=True)
class Rendezvous:
    """Where the processes of a run meet.

    Attributes:
      coordinator: HOST:PORT of process 0, where all others reach it.
      count: number of processes.
      index: index of this process, from 0.
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


def meet(rendezvous: Rendezvous) -> dict[int, "Peer"]:
    """Lines to the other processes: from the coordinator to all, from all others to it.

    Raises:
      Absent: not all came in time; it names who is missing.
      UserError: two say that they are the same, or count the processes differently.
    """
    return _call(rendezvous) if rendezvous.index else _gather(rendezvous)


class Peer:
    """The line to another process.

    Attributes:
      index: index of that process.
      host: the name of its machine.
      inbox: what it has said and nobody has taken yet.
    """

    def __init__(self, connection: socket.socket, index: int, host: str):
        self.index, self.host = index, host
        self.inbox: queue.SimpleQueue[dict] = queue.SimpleQueue()
        self._connection, self._lines = connection, connection.makefile("rb")

    def send(self, message: dict[str, Any]) -> None:
        """Sends one message to the other process."""
        self._connection.sendall(encode(message))

    def receive(self) -> dict[str, Any] | None:
        """The next message; None at the end of the line, empty if it is not well formed."""
        try:
            line = self._lines.readline(LONGEST_MESSAGE)
        except OSError:
            return None
        return decode(line) if line else None

    def close(self) -> None:
        """Lets go of the line."""
        self._lines.close()
        self._connection.close()

    def keep(self, seconds: float | None = None) -> None:
        """Sets how long to wait for a message, without an end by default."""
        self._connection.settimeout(seconds)
        # A machine that vanishes closes nothing: the kernel asks after it, and gives up.
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (("TCP_KEEPIDLE", 20), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 4)):
            if hasattr(socket, option):
                self._connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def _gather(rendezvous: Rendezvous) -> dict[int, Peer]:
    """The coordinator's part: waits for all others, then lets them go on."""
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
        # One that is gone by now is missed as soon as it is listened to.
        with suppress(OSError):
            peer.send({"welcome": True})
        peer.keep()
    return peers


def _refused(peers: dict[int, Peer], why: str, error: type[UserError] = UserError) -> UserError:
    """Tells the others why they cannot start."""
    for peer in peers.values():
        with suppress(OSError):
            peer.send({"refused": why, "absent": error is Absent})
        peer.close()
    return error(why)


def _call(rendezvous: Rendezvous) -> dict[int, Peer]:
    """The part of all others: finds the coordinator and waits until everybody is there."""
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
    # The coordinator's clock may have started later than this one.
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
    """A line to the coordinator, whom it has greeted.

    Raises:
      OSError: nobody listens there, or hung up at once.
    """
    connection = socket.create_connection(address, timeout=_CONNECT_SECONDS)
    try:
        connection.sendall(greeting.line())
    except OSError:
        connection.close()
        raise
    return connection
