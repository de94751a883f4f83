"""What a folder or a manifest says about its utterances, before any recording is opened."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from otoscope.errors import AudioError, CorpusError, OtoscopeError, TranscriptError
from otoscope.speech.alignments import LONGEST
from otoscope.speech.audio import AUDIO_SUFFIXES

TRANS_SUFFIX = ".trans.txt"
TEXT_SUFFIXES = (".normalized.txt", ".lab", ".txt")
"""Endings of files with the transcript of the recording of the same name, in order of preference."""

NO_TRANSCRIPTS = frozenset(
    [
        *["readme", "license", "licence", "copying", "notice", "authors", "changelog", "requirements"],
        *["speakers", "chapters", "books"],
    ]
)
"""Stems (lower case) of text files that lie beside recordings without being transcripts."""

_CURE = "Correct it, or leave it out with skip_bad=True (--skip-bad)."


@dataclass(frozen=True, slots=True)
class Entry:
    """An utterance as a layout lists it.

    Attributes:
        id: unique in the listing.
        path: the recording.
        speaker: or None.
        transcript: or None.
        offset: start in the recording, seconds.
        duration: seconds, or None for all that follows.
        place: where it is listed.
    """

    id: str
    path: Path
    speaker: str | None
    transcript: str | None
    offset: Decimal = Decimal(0)
    duration: Decimal | None = None
    place: str = ""


@dataclass(frozen=True, slots=True)
class Listing:
    """What a layout gives: entries, and what was wrong (a name, and the error that reading raises for it)."""

    entries: tuple[Entry, ...]
    problems: tuple[tuple[str, OtoscopeError], ...]


def normalise(text: str) -> str:
    """A transcript with single spaces, otherwise as it stands."""
    return " ".join(text.split())


def list_folder(root: Path, files: list[Path]) -> Listing:
    """Lists the recordings of a folder, with the transcripts beside them.

    A transcript is a `.txt` or `.lab` file with the recording's name (`.normalized.txt` comes first), or a
    line `id text` of a `*.trans.txt` file in its folder. Where there is a `*.trans.txt` file, as in
    LibriSpeech, the speaker is the folder from which the id takes its first part (`84/121123/84-121123-0001`
    is by 84), or that first part itself. Elsewhere the folder that holds the recording names the speaker,
    unless all recordings lie in one folder.

    Ids are file names without ending, or paths below `root` where several recordings have the same name.

    Args:
        root: the folder.
        files: all files below it.

    Returns:
        Entries; transcripts without a recording are among the problems.

    Raises:
        CorpusError: two recordings have the same path but for the ending.
    """
    folders: dict[Path, list[Path]] = defaultdict(list)
    for path in files:
        folders[path.parent].append(path)
    entries: list[Entry] = []
    problems: list[tuple[str, OtoscopeError]] = []
    for folder, members in folders.items():
        audio = [path for path in members if path.suffix.lower() in AUDIO_SUFFIXES]
        twice = [stem for stem, n in Counter(path.stem for path in audio).items() if n > 1]
        if twice:
            raise CorpusError(
                f"{folder} holds {twice[0]!r} in more than one format", "Keep one recording of each name."
            )
        texts, wrong = _folder_transcripts(members, {path.stem for path in audio})
        problems += wrong
        libri = any(path.name.endswith(TRANS_SUFFIX) for path in members)
        for path in audio:
            speaker = _libri_speaker(path, root) if libri else folder.name if folder != root else None
            entries.append(Entry(path.stem, path, speaker, texts.get(path.stem), place=str(path)))
    if len({entry.path.parent for entry in entries}) == 1 and not any(
        path.name.endswith(TRANS_SUFFIX) for path in files
    ):
        entries = [replace(entry, speaker=None) for entry in entries]
    return Listing(_unique(entries, root), tuple(problems))


def list_manifest(manifest: Path) -> Listing:
    """Lists the utterances of a JSON-lines manifest.

    Keys: `audio_filepath` (needed; absolute, or relative to the manifest), `text`, `speaker`, `offset` and
    `duration` (seconds), `id`. Other keys are not used. Without an `id` the file name without ending is
    taken, with the stretch where that does not begin at 0 (`talk@1.5+3.25`).

    Args:
        manifest: the file.

    Returns:
        Entries; bad lines are among the problems, each with its number.

    Raises:
        CorpusError: the manifest cannot be read, or an id is there twice.
    """
    try:
        lines = manifest.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeError) as error:
        raise CorpusError(f"{manifest} cannot be read: {error}", "Give a JSON-lines file in UTF-8.") from error
    entries: list[Entry] = []
    problems: list[tuple[str, OtoscopeError]] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        place = f"{manifest}, line {number}"
        try:
            entries.append(_manifest_entry(line, manifest.parent, place))
        except OtoscopeError as error:
            problems.append((f"{manifest.name}:{number}", error))
    return Listing(_unique(entries, manifest.parent), tuple(problems))


def _manifest_entry(line: str, folder: Path, place: str) -> Entry:
    try:
        item: Any = json.loads(line, parse_float=Decimal, parse_int=Decimal)
    except ValueError as error:
        raise CorpusError(f"{place} is not JSON: {error}", f"Write one object a line. {_CURE}") from error
    if not isinstance(item, dict) or not isinstance(item.get("audio_filepath"), str):
        raise CorpusError(f"{place} has no 'audio_filepath'", f"Name the recording. {_CURE}")
    text = item.get("text")
    if text is not None and not isinstance(text, str):
        raise TranscriptError(f"{place}: 'text' is no string", _CURE)
    times: dict[str, Decimal] = {}
    for key in ("offset", "duration"):
        value = item.get(key)
        if value is None:
            continue
        if not isinstance(value, Decimal) or not 0 <= value < LONGEST:
            raise AudioError(f"{place}: {key!r} is {value}, not a number of seconds", _CURE)
        times[key] = value
    path = Path(item["audio_filepath"])
    path = path if path.is_absolute() else folder / path
    name = path.stem
    # Of one line only, so that the parts of a manifest give the same ids as the whole.
    if times.get("offset"):
        length = f"+{times['duration'].normalize():f}" if "duration" in times else ""
        name = f"{name}@{times['offset'].normalize():f}{length}"
    given, speaker = item.get("id"), item.get("speaker")
    return Entry(
        id=name if given is None else str(given),
        path=path,
        speaker=None if speaker is None else str(speaker),
        transcript=None if text is None else normalise(text),
        offset=times.get("offset", Decimal(0)),
        duration=times.get("duration"),
        place=place,
    )


def _folder_transcripts(members: list[Path], stems: set[str]) -> tuple[dict[str, str], list[tuple[str, OtoscopeError]]]:
    texts: dict[str, str] = {}
    problems: list[tuple[str, OtoscopeError]] = []
    for path in members:
        try:
            if path.name.endswith(TRANS_SUFFIX):
                for number, line in enumerate(_read_text(path).splitlines(), 1):
                    name, _, text = line.strip().partition(" ")
                    name, _, tabbed = name.partition("\t")
                    if not name:
                        continue
                    if name not in stems:
                        problems.append((name, _without_audio(f"{path}, line {number},", name)))
                    elif name in texts:
                        problems.append((name, TranscriptError(f"{path}, line {number}: {name} again", _CURE)))
                    else:
                        texts[name] = normalise(f"{tabbed} {text}")
        except TranscriptError as error:
            problems.append((path.name, error))
    from_lines = set(texts)
    found: set[str] = set()
    for suffix in TEXT_SUFFIXES:
        for path in members:
            stem = path.name[: -len(suffix)]
            if not path.name.endswith(suffix) or path.name.endswith((TRANS_SUFFIX, ".original.txt")):
                continue
            if suffix == ".txt" and path.name.endswith(".normalized.txt"):
                continue
            # Text files count as transcripts only in folders that hold recordings.
            if not stems or stem.lower() in NO_TRANSCRIPTS:
                continue
            if stem not in stems:
                problems.append((stem, _without_audio(str(path), stem)))
            elif stem not in from_lines | found:
                try:
                    texts[stem] = normalise(_read_text(path))
                    found.add(stem)
                except TranscriptError as error:
                    problems.append((stem, error))
    return texts, problems


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeError) as error:
        raise TranscriptError(f"{path} cannot be read as UTF-8 text: {error}", _CURE) from error


def _without_audio(where: str, name: str) -> TranscriptError:
    return TranscriptError(
        f"{where} has a transcript of {name!r}, but the folder has no such recording",
        "Add the recording, remove the transcript, or leave it out with skip_bad=True (--skip-bad).",
    )


def _libri_speaker(path: Path, root: Path) -> str | None:
    below = path.relative_to(root).parts[:-1]
    for folder in (*below, root.name):
        if path.stem.startswith(f"{folder}-"):
            return folder
    first, dash, _ = path.stem.partition("-")
    return first if dash else None


def _unique(entries: Iterable[Entry], root: Path) -> tuple[Entry, ...]:
    """Entries sorted by id; where several have the same id, those take the path below `root` instead."""
    held = list(entries)
    counts = Counter(entry.id for entry in held)
    unique = []
    for entry in held:
        if counts[entry.id] > 1 and entry.id == entry.path.stem and entry.path.is_relative_to(root):
            entry = replace(entry, id=entry.path.relative_to(root).with_suffix("").as_posix())
        unique.append(entry)
    twice = [(name, n) for name, n in Counter(entry.id for entry in unique).items() if n > 1]
    if twice:
        name, n = twice[0]
        places = [entry.place for entry in unique if entry.id == name]
        raise CorpusError(
            f"{n} utterances have the id {name!r}: {places[0]} and {places[1]}",
            "Give every utterance an id of its own (key 'id' in a manifest).",
        )
    return tuple(sorted(unique, key=lambda entry: entry.id))
