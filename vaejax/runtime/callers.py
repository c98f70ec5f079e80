"""Connections to the coordinator's port: read concurrently, dropped after an invalid greeting."""

import selectors
import socket
import time
from dataclasses import dataclass, field

from vaejax.runtime.messages import LONGEST_GREETING, Greeting, greeting
from vaejax.runtime.streams import print_line

_GREETING_SECONDS = 10.0
# That have not greeted yet; of more, the oldest is dropped. A process greets as soon as it is
# connected, and each caller holds one of few file descriptors.
_MOST_CALLERS = 128


@dataclass
class _Caller:
    connection: socket.socket
    host: str
    until: float
    heard: bytearray = field(default_factory=bytearray)


class Callers:
    """Those who call at a port, of whom only processes of a run are let in.

    One that says nothing for 10 s, or anything but a greeting, is dropped, and holds up nobody
    meanwhile. One line tells of it, once for each machine that calls so.
    """

    def __init__(self, port: int, processes: int):
        """Listens.

        Args:
          port: port of this machine, on all of its IPv4 addresses.
          processes: that will call, perhaps all at once.

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
        """The line to a process that calls, and how it greets; None if none does in time.

        Args:
          deadline: by `time.monotonic`.
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
        """Listens no more, and drops who has not greeted."""
        for caller in list(self._callers.values()):
            self._forget(caller)
            caller.connection.close()
        self._selector.close()
        self._server.close()

    def _accept(self, now: float) -> None:
        try:
            connection, (host, _) = self._server.accept()
        except OSError:
            return  # hung up already
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
