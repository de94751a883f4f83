"""Writes utterances as a tree that `read_corpus` reads back."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import soundfile
from praatio import textgrid

from otoscope.errors import CorpusError
from otoscope.speech.audio import RATE
from otoscope.speech.layouts import TRANS_SUFFIX
from otoscope.speech.utterance import Utterance

FORMATS = {"flac": ("FLAC", "PCM_16"), "wav": ("WAV", "PCM_16"), "opus": ("OGG", "OPUS")}

_FILE_TIERS = {"word": "words", "phone": "phones"}


def write_corpus(utterances: Iterable[Utterance], folder: str | Path, format: str = "flac") -> Path:
    """Writes utterances as LibriSpeech lays them out, with a TextGrid beside each recording.

    `folder/speaker/id.flac`, `folder/speaker/speaker.trans.txt`, `folder/speaker/id.TextGrid` (tiers "words"
    and "phones"). File names start with the speaker: an id that does not is written as `speaker-id`. Where
    the speaker is not known, recordings and `.txt` files lie in `folder` itself. "/" in ids becomes "_". The
    folder is written under a temporary name and then renamed: it is whole or not there.

    Read back, tiers are equal to within one sample, but that gaps in the phone tier have become "sil".
    Samples are rounded to 16 bits, or coded ("opus"), and limited to full scale.

    Args:
        utterances: any.
        folder: must not exist, or be empty.
        format: "flac", "wav" or "opus".

    Returns:
        The folder.

    Raises:
        CorpusError: the folder exists and is not empty, the format is not known, two utterances would be
            written to the same file, or a speaker cannot name a folder.
        AudioError: an utterance cannot be read.
    """
    if format not in FORMATS:
        raise CorpusError(f"There is no format {format!r}", f"Choose one of {', '.join(FORMATS)}.")
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CorpusError(f"{folder} exists and is not empty", "Choose another folder, or remove it first.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".partial", dir=folder.parent))
    try:
        # mkdtemp makes folders that only their owner can open; the result gets the usual rights.
        umask = os.umask(0)
        os.umask(umask)
        partial.chmod(0o777 & ~umask)
        _write(utterances, partial, format)
        if folder.exists():
            folder.rmdir()
        partial.rename(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return folder


def _write(utterances: Iterable[Utterance], folder: Path, format: str) -> None:
    container, subtype = FORMATS[format]
    lines: dict[str, list[str]] = defaultdict(list)
    for utterance in utterances:
        target = _target(utterance, folder)
        audio = target.with_name(f"{target.name}.{format}")
        if audio.exists():
            raise CorpusError(f"Two utterances would be written as {target.name}", "Give them different ids.")
        audio.parent.mkdir(exist_ok=True)
        soundfile.write(audio, np.clip(utterance.read(), -1, 1), RATE, format=container, subtype=subtype)
        if utterance.tiers:
            write_textgrid(utterance, target.with_name(f"{target.name}.TextGrid"))
        if utterance.transcript is not None and utterance.speaker is None:
            target.with_name(f"{target.name}.txt").write_text(f"{utterance.transcript}\n", encoding="utf-8")
        elif utterance.speaker is not None:
            kept = lines[utterance.speaker]
            if utterance.transcript is not None:
                kept.append(f"{target.name} {utterance.transcript}\n")
    for speaker, kept in lines.items():
        path = folder / speaker / f"{speaker}{TRANS_SUFFIX}"
        path.write_text("".join(sorted(kept)), encoding="utf-8")


def _target(utterance: Utterance, folder: Path) -> Path:
    name, speaker = utterance.id.replace("/", "_"), utterance.speaker
    if not re.fullmatch(r"[^./\\\0][^/\\\0]*", name):
        raise CorpusError(f"{utterance.id!r} cannot name a file", "Choose ids that do not start with a dot.")
    if speaker is None:
        return folder / name
    if not re.fullmatch(r"[^./\\\0][^/\\\0]*", speaker) or " " in name:
        raise CorpusError(
            f"Speaker {speaker!r} of {utterance.id!r} cannot name a folder, or the id has a space",
            "Choose names without slashes and spaces that do not start with a dot.",
        )
    return folder / speaker / (name if name.startswith(f"{speaker}-") else f"{speaker}-{name}")


def write_textgrid(utterance: Utterance, path: Path) -> None:
    """Writes the tiers of an utterance as a Praat TextGrid (long format); gaps become blank intervals.

    Args:
        utterance: with one tier or more; "word" and "phone" are called "words" and "phones".
        path: the file.
    """
    grid = textgrid.Textgrid(0, utterance.n_samples / RATE)
    for name in sorted(utterance.tiers, reverse=True):
        times = [(_seconds(x.start), _seconds(x.end), x.label) for x in utterance.tiers[name]]
        entries = [(start, end, label) for start, end, label in times if start < end]
        grid.addTier(textgrid.IntervalTier(_FILE_TIERS.get(name, name), entries, 0, utterance.n_samples / RATE))
    grid.save(str(path), "long_textgrid", includeBlankSpaces=True)


def _seconds(samples: int) -> float:
    # One sample would be written as 6.25e-05, which TextGrid readers do not take for a number.
    return 0.0 if samples == 1 else samples / RATE
