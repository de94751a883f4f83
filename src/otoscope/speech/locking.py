"""A folder that one process at a time writes to."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from otoscope.errors import OtoscopeError

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]


@contextlib.contextmanager
def alone_in(folder: Path, busy: OtoscopeError | None = None) -> Iterator[None]:
    """Keeps other processes that ask for the same out of a folder.

    The lock lies on the folder itself and leaves no file; the system lets go of it however the process ends. Where
    there are no such locks, nothing is kept out.

    Args:
        folder: must exist.
        busy: the error that says so where another process is at work there.

    Raises:
        OtoscopeError: `busy`.
        BlockingIOError: another process is at work there, and no error was given.
        OSError: the folder cannot be opened.
    """
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if busy is None:
                raise
            raise busy from error
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        os.close(handle)
