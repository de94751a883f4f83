"""Files of a model's folder: put there whole or not at all, and carried along from where the model came."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from huggingface_hub import try_to_load_from_cache
from safetensors import SafetensorError

from otoscope.errors import TreatmentError
from otoscope.speech.locking import alone_in

PARTIAL = ".partial-"
"""How a folder's name begins in which a model is written before it is put in its place."""

# What makes up a model: an earlier one's would be taken for the new one's, if the new one has none of that name.
_MODEL_FILES = (
    "config.json", "generation_config.json", "treatment.json", "treated.safetensors", "model.safetensors",
    "model.safetensors.index.json", "model-*.safetensors", "pytorch_model*.bin", "pytorch_model.bin.index.json",
)  # fmt: skip
_TOKENIZER_FILES = (
    "tokenizer_config.json", "tokenizer.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt",
    "merges.txt", "normalizer.json", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model",
)  # fmt: skip


def put_whole(write: Callable[[Path], None], folder: Path) -> None:
    """Has a model written beside its place, then moves its files there, `config.json` last.

    Without config.json a folder is no model. Where a file cannot be moved, those before it are moved back, so that an
    earlier model stays as it was.

    Args:
        write: stores the model in an empty folder.
        folder: where it goes; files there that are not a model's stay.

    Raises:
        TreatmentError: the folder cannot be written, or another process writes a model to it.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with alone_in(folder, TreatmentError(f"Another process writes a model to {folder}", "Wait until it is done.")):
            with tempfile.TemporaryDirectory(prefix=PARTIAL, dir=folder) as room:
                partial, aside = Path(room) / "new", Path(room) / "old"
                partial.mkdir()
                aside.mkdir()
                write(partial)
                follow_umask(partial)
                _move(partial, aside, folder)
            # Of a program that was killed; it may hold an earlier model, and so goes once there is a new one.
            for left in folder.glob(f"{PARTIAL}*"):
                shutil.rmtree(left, ignore_errors=True)
    except (OSError, SafetensorError) as error:  # what safetensors makes of a full disk
        for path in made:  # folders that are empty still
            with contextlib.suppress(OSError):
                path.rmdir()
        raise TreatmentError(
            f"The model cannot be written to {folder} ({error})", "Make room there, or choose another folder."
        ) from error


def follow_umask(folder: Path) -> None:
    """Gives the files of a folder the permissions that a new file has here.

    What writes weights makes a file of its own name first, which is for its owner alone.
    """
    usual = folder / ".usual"
    usual.touch()
    mode = usual.stat().st_mode
    usual.unlink()
    for path in folder.iterdir():
        if path.is_file():
            path.chmod(mode)


def _move(partial: Path, aside: Path, folder: Path) -> None:
    new = sorted(partial.iterdir(), key=lambda path: path.name == "config.json")
    old = {path for pattern in _MODEL_FILES for path in folder.glob(pattern)}
    old |= {folder / path.name for path in new if (folder / path.name).exists()}
    steps = [(path, aside / path.name) for path in sorted(old, key=lambda path: path.name != "config.json")]
    steps += [(path, folder / path.name) for path in new]
    done: list[tuple[Path, Path]] = []
    try:
        for here, there in steps:
            os.replace(here, there)  # noqa: PTH105 - replaces on every system
            done.append((here, there))
    except OSError:
        for here, there in reversed(done):
            os.rename(there, here)  # noqa: PTH104 - what was moved goes back to where nothing is
        raise


def carry_tokenizer(origin: str, folder: Path) -> None:
    """Copies the tokenizer that lies where a model came from.

    Args:
        origin: a folder, or a name on the Hub whose files are in the cache; where there is none, nothing is copied.
        folder: where it goes.
    """
    for name in _TOKENIZER_FILES if origin else ():
        found: object = Path(origin) / name
        if not Path(origin).is_dir():
            with contextlib.suppress(ValueError):  # no name of a model
                found = try_to_load_from_cache(origin, name)
        if isinstance(found, str | Path) and Path(found).is_file():
            shutil.copyfile(found, folder / name)


def digest_of(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
