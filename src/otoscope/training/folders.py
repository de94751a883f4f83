"""The folder of a training run: what is in it, how it is taken up again, and how models are put there whole."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from transformers.utils import logging

from otoscope.errors import TrainingError
from otoscope.speech.locking import alone_in
from otoscope.treatments.files import PARTIAL, follow_umask

RUN = "run"
LOG = "log.jsonl"
SETTINGS = "settings.json"
INITIAL = "initial"
_FINGERPRINTS = ("speech", "held_out", "starting_weights")


def open_run(folder: Path, settings: Mapping[str, Any], resume: bool) -> Path | None:
    """Makes the folder of a run, or finds where an interrupted one stopped.

    Args:
        folder: of the run.
        settings: everything that the result depends on, as plain values.
        resume: go on with an interrupted run.

    Returns:
        The state to go on from, or None to begin.

    Raises:
        TrainingError: see `check_folder`; or the run was begun with other settings, or the folder cannot be written.
    """
    _refuse(folder, resume)
    kept = folder / RUN / SETTINGS
    if not kept.exists():
        try:
            (folder / RUN).mkdir(parents=True, exist_ok=True)
            replace_text(kept, json.dumps(settings, indent=1) + "\n")
        except OSError as error:
            raise TrainingError(
                f"{folder} cannot be written ({error})", "Make room there, or choose another folder."
            ) from error
        return None
    try:
        stored = dict(json.loads(kept.read_text()))
    except (OSError, ValueError) as error:
        raise TrainingError(f"{kept} cannot be read ({error})", "Remove the folder, and begin anew.") from error
    now = json.loads(json.dumps(settings))
    other = [name for name in {*stored, *now} if stored.get(name) != now.get(name)]
    if other:
        # Fingerprints last: they also follow from the seed, which says more.
        name = min(other, key=lambda name: (name in _FINGERPRINTS, name))
        raise TrainingError(
            f"The run in {folder} was begun with {name} = {stored.get(name)!r}, not {now.get(name)!r}",
            "Resume with the settings it was begun with, or choose another folder.",
        )
    return last_state(folder)


def check_folder(folder: Path, resume: bool) -> None:
    """Makes sure that a run may be begun or gone on with in a folder; to be called before long work.

    Of several processes the first alone looks, since it may have begun the run when the others come to it.

    Args:
        folder: of the run.
        resume: go on with an interrupted run.

    Raises:
        TrainingError: the folder holds a model, an interrupted run, something else, or nothing to go on from, or
            another run is at work there.
    """
    if os.environ.get("RANK", "0") != "0":
        return
    with alone(folder) if folder.is_dir() else contextlib.nullcontext():
        _refuse(folder, resume)


def _refuse(folder: Path, resume: bool) -> None:
    """Refuses a folder for what is in it; see `check_folder`."""
    kept = folder / RUN / SETTINGS
    if (folder / "config.json").exists() and (kept.exists() or not resume):
        raise TrainingError(f"{folder} holds a model already", "Choose another folder, or remove that one first.")
    if kept.exists() and not resume:
        raise TrainingError(f"{folder} holds an interrupted training run", "Go on with --resume, or remove the folder.")
    if not kept.exists() and folder.exists():
        if not folder.is_dir() or not _is_bare(folder):
            raise TrainingError(f"{folder} is not empty and holds no training run", "Choose another folder.")
        if resume and not (folder / RUN).is_dir():
            raise TrainingError(f"{folder} holds no training run to go on with", "Leave out --resume.")


def _is_bare(folder: Path) -> bool:
    """Whether a folder holds no more than what a run leaves that was killed before its settings were written."""
    run = folder / RUN
    left = {run, _unfinished(run / SETTINGS)}
    return left.issuperset(folder.iterdir()) and (not run.is_dir() or left.issuperset(run.iterdir()))


def alone(folder: Path) -> contextlib.AbstractContextManager[None]:
    """Keeps other runs out of a run's folder.

    Raises:
        TrainingError: another run is at work there.
    """
    cure = "Wait until it is done, or choose another folder."
    return alone_in(folder, TrainingError(f"Another process trains in {folder}", cure))


def last_state(folder: Path) -> Path | None:
    """The latest complete state of a run, or None."""
    states = [path for path in (folder / RUN).glob("checkpoint-*") if path.name.partition("-")[2].isdigit()]
    for state in sorted(states, key=lambda path: int(path.name.partition("-")[2]), reverse=True):
        try:
            json.loads((state / "trainer_state.json").read_text())  # written last: without it the state is half
        except (OSError, ValueError):
            shutil.rmtree(state, ignore_errors=True)
            continue
        return state
    return None


def replace_text(path: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    partial = _unfinished(path)
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def _unfinished(path: Path) -> Path:
    """Where a file is written before it is whole."""
    return path.with_name(f".{path.name}.partial")


@contextlib.contextmanager
def without_bars() -> Iterator[None]:
    """Turns transformers' own progress bars off, and afterwards on again where they were on."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def put_model(write: Callable[[Path], None], folder: Path) -> None:
    """Has a model written to a temporary folder, then moves its files into place, `config.json` last.

    Without config.json a folder is no model, so that an interruption leaves none half-written.

    Args:
        write: stores the model in an empty folder.
        folder: where it goes; other files there stay.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(f"{PARTIAL}*"):  # of a program that was killed
        shutil.rmtree(left, ignore_errors=True)
    partial = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=folder))
    try:
        write(partial)
        follow_umask(partial)
        for path in sorted(partial.iterdir(), key=lambda path: path.name == "config.json"):
            os.replace(path, folder / path.name)  # noqa: PTH105 - replaces on every system
    finally:
        shutil.rmtree(partial, ignore_errors=True)
