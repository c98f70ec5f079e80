"""Keeps the processes of a run together: they start and fail together, and notice a lost one.

The connections by which they met stay open. One that closes without a goodbye shows at once which
process has died, where JAX would wait for a heartbeat.
"""

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils

from vaejax.errors import TRY_AGAIN, Absent, UserError, short_reason
from vaejax.runtime.messages import GOODBYE, is_known
from vaejax.runtime.ports import choose_port, own_address
from vaejax.runtime.rendezvous import CAUSES, Peer, Rendezvous, meet
from vaejax.runtime.signals import interrupt_on_signal
from vaejax.runtime.streams import report_error

_NEWS_SECONDS = 5.0
# The others stop with the coordinator, and must have received the reason before.
_HEARD_SECONDS = 0.5


def start(rendezvous: Rendezvous) -> "Group":
    """Connects to the other processes and initialises JAX's distributed runtime.

    It must be called before JAX initialises its devices.

    Raises:
      Absent: not all processes came in time, or JAX could not join them.
      UserError: for the reasons that `meet` names.
    """
    group = Group(rendezvous)
    with _joining():
        jax.distributed.initialize(
            rendezvous.coordinator,
            num_processes=rendezvous.count,
            process_id=rendezvous.index,
            initialization_timeout=round(rendezvous.timeout),
        )
    return group


@contextmanager
def _joining() -> Iterator[None]:
    """Turns what JAX raises in the block, where it joins the processes, into a one-line error."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise Absent(
            f"JAX could not join the processes ({short_reason(error)}); {CAUSES}"
        ) from error
    interrupt_on_signal()  # JAX has replaced the handler of SIGTERM


def start_detected(timeout: float) -> "Group":
    """Does the same as `start` where JAX finds the others: on Cloud TPU, SLURM or Kubernetes.

    Args:
      timeout: seconds to wait for all processes; the process ends if JAX needs longer.

    Raises:
      Absent: JAX could not join the processes, or not all of them met in time.
      UserError: JAX finds no such environment, or for the reasons that `choose_port` and `meet`
        name.
    """
    own_port = choose_port()
    # JAX aborts the process at its own timeout: the likely cause must be printed before that.
    alarm = threading.Timer(
        timeout,
        _tell_and_end,
        [
            f"error: the processes did not find each other within {timeout:.0f} s; {CAUSES}",
            TRY_AGAIN,
        ],
    )
    alarm.daemon = True
    alarm.start()
    try:
        with _joining():
            _initialize_detected(timeout)
    finally:
        alarm.cancel()
    address = np.array([*map(int, own_address().split("."))], np.int32)
    host = ".".join(map(str, multihost_utils.broadcast_one_to_all(address).tolist()))
    coordinator = f"{host}:{own_port}"
    return Group(Rendezvous(coordinator, jax.process_count(), jax.process_index(), timeout))


def _initialize_detected(timeout: float) -> None:
    try:
        jax.distributed.initialize(initialization_timeout=round(timeout) + 60)
    except ValueError as error:
        raise UserError(
            f"--distributed finds neither Cloud TPU nor SLURM nor Kubernetes here "
            f"({short_reason(error)}); name --coordinator=HOST:PORT --processes=N --process=I "
            "instead"
        ) from error


class Group:
    """The processes of a run, seen from one of them.

    Attributes:
      index: index of this process.
      count: number of processes.
    """

    def __init__(self, rendezvous: Rendezvous | None = None):
        """Connects to the others (see `meet`); without a rendezvous this process is alone."""
        self.index, self.count, self._peers = 0, 1, {}
        if rendezvous:
            self.index, self.count = rendezvous.index, rendezvous.count
            self._peers = meet(rendezvous)
        self._listeners = [
            threading.Thread(target=self._listen, args=(peer,), daemon=True)
            for peer in self._peers.values()
        ]
        for listener in self._listeners:
            listener.start()

    @contextmanager
    def together(self) -> Iterator[None]:
        """Makes the block fail on all processes if it raises UserError on any; waits for all.

        Raises:
          UserError: that of this process, or else one with the message of the first that failed.
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
        """Returns the trouble of the first process that has any; empty if none has.

        All processes wait here for each other.

        Args:
          trouble: what is wrong on this process; empty if nothing is.
        """
        if self.count == 1:
            return trouble
        answers = self._exchange(trouble)
        return next((f"process {i}: {words}" for i, words in enumerate(answers) if words), "")

    def check_alike(
        self, values: dict[str, Any], remedy: str = "start all with the same settings and data"
    ) -> None:
        """Checks that every process has the same values as process 0.

        Args:
          values: values of this process by name, which JSON can hold.
          remedy: what to do if they differ; the end of the message.

        Raises:
          UserError: a process has another value than process 0. All raise it; it names both.
        """
        if self.count == 1:
            return
        answers = list(map(json.loads, self._exchange(json.dumps(values))))
        for index, own in enumerate(answers):
            for name in answers[0] | own:
                if own.get(name) != answers[0].get(name):
                    self.part()
                    raise UserError(
                        f"process {index} has {name}={own.get(name)!r}, process 0 has "
                        f"{answers[0].get(name)!r}; {remedy}"
                    )

    def least(self, number: int | None) -> int | None:
        """Returns the smallest number of all processes, which wait here; None if one has none."""
        answers = self._exchange(json.dumps(number)) if self.count > 1 else [json.dumps(number)]
        numbers = [json.loads(words) for words in answers]
        return None if None in numbers else min(numbers)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Ends all processes soon after one fails in the block, with its exit status.

        Nothing is closed first: this process, and JAX at its exit, would wait for the others to do
        the same.
        """
        try:
            yield
        except BaseException as error:
            if self._peers:
                # The cause may be the loss of another process, whose message then ends this one.
                if not isinstance(error, KeyboardInterrupt):
                    time.sleep(_NEWS_SECONDS)
                status = report_error(error)
                name = f"process {self.index} ({socket.gethostname()})"
                self._send({"gone": name, "status": status})
                _end(status, after=_HEARD_SECONDS)
            raise

    def leave(self) -> None:
        """Ends the joint work of all processes, which wait for each other; then each is alone."""
        if self.count > 1:
            self._exchange("")
            jax.distributed.shutdown()
            self.part()

    def part(self) -> None:
        """Disconnects from the others, which all must do so now; no loss is noticed afterwards."""
        self._send(GOODBYE)
        for listener in self._listeners:
            listener.join()
        for peer in self._peers.values():
            peer.close()
        self._peers = {}

    def _exchange(self, words: str) -> list[str]:
        """Sends `words` and returns those of every process by its index; waits for all."""
        if self.index:
            self._peers[0].send({"words": words})
            return self._peers[0].inbox.get()["all"]
        answers = [words] + [self._peers[i].inbox.get()["words"] for i in range(1, self.count)]
        for peer in self._peers.values():
            peer.send({"all": answers})
        return answers

    def _send(self, message: dict, but: Peer | None = None) -> None:
        """Sends one message to all processes that are still connected, or to all but one."""
        for peer in self._peers.values():
            if peer is not but:
                with suppress(OSError):
                    peer.send(message)

    def _listen(self, peer: Peer) -> None:
        while (message := peer.receive()) != GOODBYE:
            # A connection that has ended, or has sent nonsense, brings nothing that is waited for.
            if message is None or not is_known(message, self.count, to_coordinator=not self.index):
                message = {"gone": f"process {peer.index} ({peer.host})", "status": TRY_AGAIN}
            if "gone" in message:
                self._send(message, but=peer)
                words = (
                    f"error: {message['gone']} of {self.count} is gone; see its own error message"
                )
                if message["status"] == TRY_AGAIN:
                    words += "; run the same command on all to go on from the newest checkpoint"
                _tell_and_end(words, message["status"], after=0.0 if self.index else _HEARD_SECONDS)
            peer.inbox.put(message)


ALONE = Group()


def _tell_and_end(words: str, status: int, after: float = 0.0) -> None:
    """Prints an error and ends the process from a thread, while the main thread may be blocked."""
    os.write(2, f"\n{words}\n".encode(errors="replace"))
    _end(status, after)


def _end(status: int, after: float) -> NoReturn:
    time.sleep(after)
    os._exit(status)
