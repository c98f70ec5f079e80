"""The exceptions that the commands print as one line, and their exit statuses."""

import errno
import os
from collections.abc import Iterator

NO_SPACE = "no space is left on the disk, or a quota is used up"
_FULL = (errno.ENOSPC, errno.EDQUOT)
# The system may have fewer of these to give than this process needs now.
_LIMITS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
_AWAY = (
    errno.EIO,
    errno.ESTALE,
    errno.ETIMEDOUT,
    errno.ENOTCONN,
    errno.EACCES,
    errno.EPERM,
    *_LIMITS,
)
# Clearer than the operating system's messages for these errors.
_IN_THE_WAY = {
    errno.EEXIST: "a file lies in its place",
    errno.ENOTDIR: "a directory of this path is a file",
}
_NO_MEMORY = (
    "there is not enough memory; lower config.train.batch_size or config.eval.batch_size, raise "
    "config.train.accumulate, or ask `python -m vaejax.aot --find_batch` what fits"
)
# EX_TEMPFAIL of sysexits.h: the run was asked to stop, or another process is gone.
TRY_AGAIN = 75


class UserError(Exception):
    """A mistake that the user can correct.

    The message is one line that names what is wrong, the value found and the remedy. The
    commands print it without a traceback and exit with `status`.
    """

    status = 2


class Absent(UserError):
    """Another process of the run did not join in time, or is gone; a later start may succeed."""

    status = TRY_AGAIN


class TrainingError(Exception):
    """A run that cannot continue, although the user made no mistake."""

    status = 3


class DamagedCheckpoint(UserError):
    """A checkpoint cannot be read, or its content is not what was saved."""


class DoesNotFit(UserError):
    """A program needs more memory than a device has.

    Attributes:
      needed: bytes that the program needs on one device.
      had: bytes of memory that the device has.
    """

    def __init__(self, needed: int, had: int):
        """Builds the message from both sizes, in bytes."""
        super().__init__(f"the step needs {needed / 2**30:.2f} GiB of a device's {had / 2**30:.2f}")
        self.needed, self.had = needed, had


def one_line(error: BaseException) -> tuple[str, int] | None:
    """Returns the one-line message for an error and the exit status of the command.

    Returns None for an unexpected error, which is printed with its traceback.
    """
    where = f"{error.filename}: " if isinstance(error, OSError) and error.filename else ""
    match error:
        case UserError() | TrainingError():
            return str(error), error.status
        case KeyboardInterrupt():
            return "interrupted; run the same command to go on", TRY_AGAIN
        case OSError(errno=errno.ENOSPC | errno.EDQUOT):
            return f"{where}{error.strerror}; make room and run it again", UserError.status
        case OSError(errno=errno.EIO | errno.ESTALE | errno.ETIMEDOUT | errno.ENOTCONN):
            # Not the user's mistake: storage that is out of reach may be back at the next start.
            return f"{where}{error.strerror}; run the same command to go on", 1
        case OSError():
            return f"{where}{short_reason(error)}", UserError.status
    if is_out_of_memory(error):
        return f"{_NO_MEMORY} ({short_reason(error)})", UserError.status
    return None


def short_reason(error: BaseException) -> str:
    """Returns the reason for an error that a library raised, in at most one short line."""
    if is_out_of_space(error):
        return NO_SPACE
    if isinstance(error, MemoryError):
        return str(error) or "in this process"
    if isinstance(error, OSError) and error.strerror:
        return _IN_THE_WAY.get(error.errno or 0, error.strerror)
    text = next(iter(str(error).strip().splitlines()), "")
    return ": ".join(filter(None, (type(error).__name__, text.partition(". See full ")[0][:120])))


def is_out_of_space(error: BaseException) -> bool:
    """Returns whether a full disk or an exhausted quota caused the error."""
    return _is_behind(error, _FULL)


def is_out_of_reach(error: BaseException) -> bool:
    """Returns whether storage out of reach, a permission or the system's limits caused the error.

    Nothing is damaged in that case.
    """
    return _is_behind(error, _AWAY)


def is_at_a_limit(error: BaseException) -> bool:
    """Returns whether the memory or the number of open files that the system grants is used up."""
    return is_out_of_memory(error) or _is_behind(error, _LIMITS)


def is_out_of_memory(error: BaseException) -> bool:
    """Returns whether this process or a device has too little memory."""
    return any(map(_is_of_memory, _chain(error)))


def _is_of_memory(error: BaseException) -> bool:
    # JAX's error is recognised by its name, because JAX is not imported here.
    on_device = type(error).__name__ == "JaxRuntimeError" and "RESOURCE_EXHAUSTED" in str(error)
    return isinstance(error, MemoryError) or on_device


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yields an error and those that it was raised from, or while handling."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _is_behind(error: BaseException, numbers: tuple[int, ...]) -> bool:
    """Returns whether the error, or one that it was raised from, has one of these `errno`s.

    Their texts are searched for as well: some libraries report the text without the number.
    """
    words = tuple(map(os.strerror, numbers))
    return any(
        getattr(one, "errno", None) in numbers or any(word in str(one) for word in words)
        for one in _chain(error)
    )
