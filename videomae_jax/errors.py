"""The two kinds of failure that a user can fix, and how they are shown; all else keeps its stack trace."""


class InputError(ValueError):
    """What was asked for makes no sense or does not exist (exit code 2)."""


class RunError(RuntimeError):
    """The work was started and had to stop (exit code 1)."""


def printable(text: str, keep: str = "") -> str:
    """Text that is safe to print: control characters, and bytes that are not text, are escaped."""
    return "".join(
        each if each.isprintable() or each in keep else each.encode("unicode_escape").decode()
        for each in in_utf8(text)
    )


def in_utf8(text: str) -> str:
    """The text with an escape for each byte of a file name that is none."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
