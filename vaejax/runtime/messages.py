"""Encodes, decodes and validates messages between the processes of a run: a JSON object per line.

Any program may connect to an open port, so no message is acted on before it was validated here.
"""

import json
from dataclasses import asdict, dataclass
from typing import Any

# Most bytes of a line, with its end. A greeting is short; the words of all processes may be long.
LONGEST_GREETING = 4096
LONGEST_MESSAGE = 2**26

GOODBYE = {"goodbye": True}
_LONGEST_HOST_NAME = 255


@dataclass(frozen=True)
class Greeting:
    """The first message of a process, which says who it is.

    Attributes:
      process: its index, from 1: process 0 receives the greetings.
      processes: number of processes that it was started with.
      host: name of its machine.
    """

    process: int
    processes: int
    host: str

    def line(self) -> bytes:
        """Returns the line that is sent."""
        return encode(asdict(self))


def encode(message: dict[str, Any]) -> bytes:
    """Returns a message as one line of JSON."""
    return json.dumps(message).encode() + b"\n"


def decode(line: bytes) -> dict[str, Any]:
    """Returns the message in a line; empty if it is not a JSON object in a whole line of UTF-8."""
    try:
        # Decoded first: given bytes, `json` would guess between UTF-8, UTF-16 and UTF-32.
        message = json.loads(line.decode()) if line.endswith(b"\n") else None
    except (ValueError, RecursionError):
        return {}
    return message if isinstance(message, dict) else {}


def greeting(line: bytes) -> Greeting | None:
    """Returns the greeting in a line; None if the line is anything else."""
    match decode(line) if len(line) <= LONGEST_GREETING else {}:
        case {"process": process, "processes": processes, "host": str(host), **rest}:
            # Not by isinstance: True is an instance of int.
            counted = type(process) is type(processes) is int and 0 < process < processes
            named = host.isprintable() and len(host) <= _LONGEST_HOST_NAME
            return Greeting(process, processes, host) if counted and named and not rest else None
    return None


def is_known(message: dict[str, Any], processes: int, *, to_coordinator: bool) -> bool:
    """Whether a message is one that processes send each other while they train together.

    Args:
      message: the decoded message.
      processes: number of processes of the run.
      to_coordinator: whether process 0 has received it.
    """
    match message:
        case {"goodbye": True} if len(message) == 1:
            return True
        case {"gone": str(), "status": status} if len(message) == 2:
            return type(status) is int and 0 < status < 256
        case {"words": str()} if len(message) == 1:
            return to_coordinator
        case {"all": list(answers)} if len(message) == 1:
            right = len(answers) == processes and all(isinstance(words, str) for words in answers)
            return right and not to_coordinator
    return False
