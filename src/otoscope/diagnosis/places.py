"""Folders that results are written to."""

import json
import os
import shutil
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

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
        f"The {what.split()[1]} cannot be written to {folder}: {error}",
        "Name a folder that you may write to and that has room.",
    )


def write_result(
    folder: Path,
    what: str,
    files: Mapping[str, Callable[[Path], object]],
    about: tuple[str, Mapping[str, Any]],
    outdated: Collection[str] = (),
) -> None:
    """Writes a folder with a result, whole or not at all; whatever else lies in it stays.

    Args:
        folder: where `check_result_place` found that it may go.
        what: the result with its article.
        files: what writes each file, by name.
        about: name and content of the description, without which a folder is no result.
        outdated: files of an earlier result that are taken away, since they would seem to be of this one.

    Raises:
        ResultError: it cannot be written.
    """
    name, content = about
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    unfinished = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    try:
        unfinished.mkdir(parents=True)
        (unfinished / name).write_text(text + "\n", encoding="utf-8")
        for file, write in files.items():
            write(unfinished / file)
            shutil.copymode(unfinished / name, unfinished / file)  # some are written for their owner alone
        if not folder.exists():
            unfinished.rename(folder)
        else:
            # Without its description a folder is no result, so a break leaves none rather than a mixture.
            (folder / name).unlink(missing_ok=True)
            for file in files:
                (unfinished / file).replace(folder / file)
            for file in outdated:
                (folder / file).unlink(missing_ok=True)
            (unfinished / name).replace(folder / name)
    except (OSError, SafetensorError) as error:
        raise unwritable(what, folder, error) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
