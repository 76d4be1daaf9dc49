"""The two kinds of failure that a user can mend; anything else is a bug and keeps its stack trace."""


class InputError(ValueError):
    """What was asked for makes no sense or does not exist (exit code 2)."""


class RunError(RuntimeError):
    """The work was started and had to stop (exit code 1)."""
