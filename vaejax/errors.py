"""The exceptions that the commands print as one line, and how they end with them."""

import errno
import os

NO_SPACE = "no space is left on the disk, or a quota is used up"
_FULL = (errno.ENOSPC, errno.EDQUOT)
_AWAY = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.EACCES, errno.EPERM)
# The system's words for these say little of what is to be mended.
_IN_THE_WAY = {
    errno.EEXIST: "a file lies in its place",
    errno.ENOTDIR: "a directory of this path is a file",
}
_NO_MEMORY = (
    "there is not enough memory; lower config.train.batch_size or config.eval.batch_size, raise "
    "config.train.accumulate, or ask `python -m vaejax.aot --find_batch` what fits"
)
# sysexits.h's "try again later": asked to stop, or somebody else is gone.
TRY_AGAIN = 75


class UserError(Exception):
    """A mistake its user can mend.

    The message is one line that names the thing, the value found and the remedy. The
    commands print it without a traceback and exit with its status.
    """

    status = 2


class Absent(UserError):
    """A process of the run did not come; it may when tried again."""

    status = TRY_AGAIN


class TrainingError(Exception):
    """A run that cannot go on, though its user made no mistake."""

    status = 3


class DamagedCheckpoint(UserError):
    """A checkpoint that cannot be read, or is not what was saved."""


class DoesNotFit(UserError):
    """A program needs more memory than a device has.

    Attributes:
      needed: bytes.
      had: bytes.
    """

    def __init__(self, needed: int, had: int):
        """Makes the message of both sizes, in bytes."""
        super().__init__(f"the step needs {needed / 2**30:.2f} GiB of a device's {had / 2**30:.2f}")
        self.needed, self.had = needed, had


def one_line(error: BaseException) -> tuple[str, int] | None:
    """What a command says of an error, and its exit status; None where a traceback is due."""
    where = f"{error.filename}: " if isinstance(error, OSError) and error.filename else ""
    match error:
        case UserError() | TrainingError():
            return str(error), error.status
        case KeyboardInterrupt():
            return "interrupted; run the same command to go on", TRY_AGAIN
        case OSError(errno=errno.ENOSPC | errno.EDQUOT):
            return f"{where}{error.strerror}; make room and run it again", UserError.status
        case OSError(errno=errno.EIO | errno.ESTALE | errno.ETIMEDOUT | errno.ENOTCONN):
            # Nobody's mistake: storage that is away may be there when tried again.
            return f"{where}{error.strerror}; run the same command to go on", 1
        case OSError():
            return f"{where}{short_reason(error)}", UserError.status
        case MemoryError():
            return f"{_NO_MEMORY} ({short_reason(error)})", UserError.status
    # JAX's own, which is not imported here.
    if type(error).__name__ == "JaxRuntimeError" and "RESOURCE_EXHAUSTED" in str(error):
        return f"{_NO_MEMORY} ({short_reason(error)})", UserError.status
    return None


def short_reason(error: BaseException) -> str:
    """What a library says of an error, in at most one short line."""
    if is_out_of_space(error):
        return NO_SPACE
    if isinstance(error, MemoryError):
        return str(error) or "of this process"
    if isinstance(error, OSError) and error.strerror:
        return _IN_THE_WAY.get(error.errno or 0, error.strerror)
    text = next(iter(str(error).strip().splitlines()), "")
    return ": ".join(filter(None, (type(error).__name__, text.partition(". See full ")[0][:120])))


def is_out_of_space(error: BaseException) -> bool:
    """Whether a full disk or a quota is behind an error."""
    return _is_behind(error, _FULL)


def is_out_of_reach(error: BaseException) -> bool:
    """Whether storage that is away, or a permission, is behind an error: nothing is damaged."""
    return _is_behind(error, _AWAY)


def _is_behind(error: BaseException | None, numbers: tuple[int, ...]) -> bool:
    """Whether one of these `errno`s is behind an error; some libraries tell it in words alone."""
    words = tuple(map(os.strerror, numbers))
    while error is not None:
        if getattr(error, "errno", None) in numbers or any(word in str(error) for word in words):
            return True
        error = error.__cause__ or error.__context__
    return False
