"""The exceptions that the commands print as one line."""


class UserError(Exception):
    """A mistake its user can mend.

    The message is one line that names the thing, the value found and the remedy. The
    commands print it without a traceback and exit with status 2.
    """


class TrainingError(Exception):
    """A run that cannot go on, though its user made no mistake. Exit status 3."""


class DamagedCheckpoint(UserError):
    """A checkpoint that cannot be read, or is not what was saved."""
