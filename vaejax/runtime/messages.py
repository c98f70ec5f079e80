"""What the processes of a run say to each other: one JSON object a line, and which are well formed.

Anything may call at an open port, so that nothing is obeyed before it was checked here.
"""

import json
from dataclasses import asdict, dataclass
from typing import Any

# Bytes of a line, with its end. A greeting is short; what all say together may be long.
LONGEST_GREETING = 4096
LONGEST_MESSAGE = 2**26

GOODBYE = {"goodbye": True}
_LONGEST_HOST_NAME = 255


@dataclass(frozen=True)
class Greeting:
    """By which a process says who it is.

    Attributes:
      process: its index, from 1: process 0 is whom it greets.
      processes: how many it was told there are.
      host: the name of its machine.
    """

    process: int
    processes: int
    host: str

    def line(self) -> bytes:
        """As it is sent."""
        return encode(asdict(self))


def encode(message: dict[str, Any]) -> bytes:
    """A message as one line."""
    return json.dumps(message).encode() + b"\n"


def decode(line: bytes) -> dict[str, Any]:
    """The message in a line; empty where it is no JSON object in a whole line of UTF-8."""
    try:
        # Decoded first: of bytes, `json` guesses between UTF-8, 16 and 32.
        message = json.loads(line.decode()) if line.endswith(b"\n") else None
    except (ValueError, RecursionError):
        return {}
    return message if isinstance(message, dict) else {}


def greeting(line: bytes) -> Greeting | None:
    """The greeting in a line; None where it is anything else."""
    match decode(line) if len(line) <= LONGEST_GREETING else {}:
        case {"process": process, "processes": processes, "host": str(host), **rest}:
            # By type: True is an instance of int.
            counted = type(process) is type(processes) is int and 0 < process < processes
            named = host.isprintable() and len(host) <= _LONGEST_HOST_NAME
            return Greeting(process, processes, host) if counted and named and not rest else None
    return None


def is_known(message: dict[str, Any], processes: int, *, to_coordinator: bool) -> bool:
    """Whether a message is one that processes say while they train together.

    Args:
      message: as decoded.
      processes: processes of the run.
      to_coordinator: whether process 0 is who hears it.
    """
    match message:
        case {"goodbye": True} if len(message) == 1:
            return True
        case {"gone": str(), "status": status} if len(message) == 2:
            return type(status) is int and 0 < status < 256
        case {"words": str()} if len(message) == 1:
            return to_coordinator
        case {"all": list(said)} if len(message) == 1:
            right = len(said) == processes and all(isinstance(words, str) for words in said)
            return right and not to_coordinator
    return False
