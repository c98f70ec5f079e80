"""Connections to the coordinator's port: read concurrently, dropped after an invalid greeting."""

import selectors
import socket
import time
from dataclasses import dataclass, field

from vaejax.runtime.messages import LONGEST_GREETING, Greeting, greeting
from vaejax.runtime.streams import print_line

_GREETING_SECONDS = 10.0
# Most connections that have not greeted yet; beyond that, the oldest is dropped. A process greets
# as soon as it is connected, and each connection holds one of few file descriptors.
_MOST_CALLERS = 128


@dataclass
class _Caller:
    connection: socket.socket
    host: str
    until: float
    heard: bytearray = field(default_factory=bytearray)


class Callers:
    """The connections to a port, of which only those from processes of a run are accepted.

    A connection that sends no valid greeting within 10 s is dropped, and delays no other one
    meanwhile. One line reports it, once for each machine.
    """

    def __init__(self, port: int, processes: int):
        """Starts to listen.

        Args:
          port: port of this machine, on all of its IPv4 addresses.
          processes: number of processes that will connect, perhaps all at once.

        Raises:
          OSError: the port cannot be opened.
        """
        self._server = socket.create_server(("", port), backlog=_MOST_CALLERS + processes)
        self._server.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._server, selectors.EVENT_READ)
        self._callers: dict[socket.socket, _Caller] = {}
        self._told: set[str] = set()

    def next(self, deadline: float) -> tuple[socket.socket, Greeting] | None:
        """Waits for a process; returns its connection and greeting, or None if none comes in time.

        Args:
          deadline: the time by `time.monotonic`, in seconds, at which to give up.
        """
        while (now := time.monotonic()) < deadline:
            for caller in [caller for caller in self._callers.values() if caller.until <= now]:
                self._drop(caller)
            end = min([deadline, *(caller.until for caller in self._callers.values())])
            for key, _ in self._selector.select(end - now):
                if key.fileobj is self._server:
                    self._accept(now)
                elif key.fileobj in self._callers and (found := self._hear(key.data)):
                    return found
        return None

    def close(self) -> None:
        """Stops listening, and closes connections that have not greeted."""
        for caller in list(self._callers.values()):
            self._forget(caller)
            caller.connection.close()
        self._selector.close()
        self._server.close()

    def _accept(self, now: float) -> None:
        try:
            connection, (host, _) = self._server.accept()
        except OSError:
            return  # disconnected already
        connection.setblocking(False)
        if len(self._callers) == _MOST_CALLERS:
            self._drop(next(iter(self._callers.values())))
        caller = self._callers[connection] = _Caller(connection, host, now + _GREETING_SECONDS)
        self._selector.register(connection, selectors.EVENT_READ, caller)

    def _hear(self, caller: _Caller) -> tuple[socket.socket, Greeting] | None:
        try:
            part = caller.connection.recv(LONGEST_GREETING)
        except BlockingIOError:
            return None
        except OSError:
            part = b""
        caller.heard += part
        if part and b"\n" not in part and len(caller.heard) <= LONGEST_GREETING:
            return None
        if not (words := greeting(bytes(caller.heard))):
            self._drop(caller)
            return None
        self._forget(caller)
        caller.connection.setblocking(True)
        return caller.connection, words

    def _drop(self, caller: _Caller) -> None:
        self._forget(caller)
        caller.connection.close()
        if caller.host not in self._told:
            self._told.add(caller.host)
            print_line(f"dropped a caller from {caller.host} that is no process of this run")

    def _forget(self, caller: _Caller) -> None:
        del self._callers[caller.connection]
        self._selector.unregister(caller.connection)
