"""The exceptions that the commands print as one line."""


class UserError(Exception):
    """A mistake its user can mend.

    The message is one line that names the thing, the value found and the remedy. The
    commands print it without a traceback and exit with status 2.
    """


class Absent(UserError):
    """A process of the run did not come; it may when tried again. Exit status 75."""


class TrainingError(Exception):
    """A run that cannot go on, though its user made no mistake. Exit status 3."""


class DamagedCheckpoint(UserError):
    """A checkpoint that cannot be read, or is not what was saved."""


class DoesNotFit(UserError):
    """A program needs more memory than a device has.

    Attributes:
      needed: bytes.
      had: bytes.
    """

    def __init__(self, needed: int, had: int):
        """Says so."""
        super().__init__(f"the step needs {needed / 2**30:.2f} GiB of a device's {had / 2**30:.2f}")
        self.needed, self.had = needed, had
