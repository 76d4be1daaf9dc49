"""Whether a path is a file that can be read, asked before a decoder waits for a pipe or calls it damaged."""

import errno
import mmap
import os
import stat
from pathlib import Path

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe (FIFO)",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_CHUNK = 1 << 20
_FEW_FRAMES = 64 << 20
# What a system says that is short of something, or whose storage is not answering.
_PASSING = (
    *(errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.EIO, errno.ESTALE, errno.ETIMEDOUT),
    *(errno.ECONNRESET, errno.ECONNREFUSED, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EHOSTDOWN),
)
# What stores say in their own words.
_PASSING_WORDS = ("DEADLINE_EXCEEDED", "UNAVAILABLE", "RESOURCE_EXHAUSTED", "timed out", "CURL error")


def passing_failure(error: BaseException | str) -> str:
    """What the system said, where it may not say so in a moment; empty where it is no such failure."""
    if isinstance(error, OSError) and error.errno in _PASSING:
        return os.strerror(error.errno)
    words = (*map(os.strerror, _PASSING), *_PASSING_WORDS)
    return next((each for each in words if each in str(error)), "")


def check_memory() -> None:
    """Raise MemoryError where the system refuses this process what a few frames of a video take."""
    try:
        mmap.mmap(-1, _FEW_FRAMES).close()
    except OSError as error:
        raise MemoryError(f"no memory to read a video with: {error.strerror}") from error


def why_not_readable(path: str | os.PathLike[str]) -> tuple[str, str] | None:
    """The reason (missing, not-a-file or unreadable) and the detail, as in VideoError; None for a file."""
    try:
        kind = stat.S_IFMT(os.stat(path).st_mode)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return "missing", "it links to nothing" if os.path.islink(path) else "there is no such file"
        return "unreadable", error.strerror or str(error)
    except ValueError as error:  # A null character, or what the file system's encoding has no bytes for.
        return "missing", f"no file can have this name: {error}"
    return None if kind == stat.S_IFREG else ("not-a-file", f"it is {_KINDS.get(kind, 'no regular file')}")


def why_unread(path: str | os.PathLike[str]) -> tuple[str, str] | None:
    """The same where reading the file from its first byte to its last fails; None where it does not.

    Decoders say EIO of files that are only cut short, so the storage has to be asked itself.
    """
    if reason := why_not_readable(path):
        return reason
    try:
        with Path(path).open("rb", buffering=0) as file:
            while file.read(_CHUNK):
                pass
    except OSError as error:
        return "unreadable", error.strerror or str(error)
    return None
