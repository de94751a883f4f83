"""Folders that results are written to."""

import os
from collections.abc import Callable
from pathlib import Path

from otoscope.errors import ResultError


def check_result_place(folder: str | Path, what: str, is_one: Callable[[Path], bool]) -> Path:
    """Makes sure that a result may be written to a folder; to be called before long work.

    Args:
        folder: where it shall go.
        what: the result with its article, such as "a diagnosis".
        is_one: whether a folder holds an earlier result of the kind, which may be replaced.

    Returns:
        The folder, with links followed.

    Raises:
        ResultError: it is a file, holds something else, or cannot be written.
    """
    try:
        folder = Path(folder).resolve()
        if folder.exists() and not folder.is_dir():
            raise ResultError(f"{folder} is a file", f"Name a folder for the {what.split()[1]}.")
        if folder.is_dir() and any(folder.iterdir()) and not is_one(folder):
            raise ResultError(f"The folder {folder} holds something other than {what}", "Name a new or empty folder.")
        there = next(parent for parent in (folder, *folder.parents) if parent.exists())
        if not there.is_dir() or not os.access(there, os.W_OK):
            raise OSError(f"{there} cannot be written to")
    except (OSError, RuntimeError) as error:
        raise unwritable(what, folder, error) from error
    return Path(folder)


def unwritable(what: str, folder: str | Path, error: Exception) -> ResultError:
    """The error of a result that cannot be written; one that is named already stays as it is."""
    if isinstance(error, ResultError):
        return error
    return ResultError(
        f"The {what.split()[1]} cannot be written to {folder}: {error}", "Name a folder that you may write to."
    )
