"""Reads a corpus: a folder of recordings, a LibriSpeech tree, a manifest, or one recording."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from otoscope.errors import AlignmentError, AudioError, CorpusError, OtoscopeError, SpeechError
from otoscope.speech.alignments import build_tiers, to_samples, within
from otoscope.speech.audio import AUDIO_SUFFIXES, FRAME, RATE, AudioSource, check_length, probe
from otoscope.speech.corpus import Corpus, LeftOut
from otoscope.speech.finding import AlignmentFinder, kind, refuse, walk
from otoscope.speech.layouts import Entry, Listing, list_folder, list_manifest
from otoscope.speech.phones import PHONE_SETS
from otoscope.speech.utterance import Interval, Utterance

MANIFEST_SUFFIXES = (".jsonl", ".json", ".manifest", ".ndjson")


def read_corpus(
    path: str | Path,
    *,
    alignments: str | Path | None = None,
    skip_bad: bool = False,
    phone_set: str | None = "arpabet39",
    name: str | None = None,
) -> Corpus:
    """Reads a corpus; headers and labels only, the samples later, when they are asked for.

    The layout is recognised: a folder (searched with all its folders; `.txt`, `.lab` or `*.trans.txt` beside
    the recordings, so that LibriSpeech's tree is one), a JSON-lines manifest (`audio_filepath`, `text`,
    `speaker`, `offset`, `duration`, `id`), or a single recording.

    Phone and word times come from the TextGrid that has a recording's name: beside it, else anywhere below
    the folder, else below a folder `alignments` beside the folder (for a manifest: `alignments` in its folder
    or beside that). An utterance without one has no tiers. With `alignments`, only what lies there is used,
    and an utterance without an alignment is an error.

    Args:
        path: folder, manifest (.jsonl, .json, .manifest, .ndjson) or recording.
        alignments: folder of TextGrids or CTM files, or one such file.
        skip_bad: leave out what cannot be used and list it in `Corpus.left_out`, rather than refuse all.
        phone_set: "arpabet39", "arpabet61", "timit39" or None; see `otoscope.speech.phones.fold_phone`.
        name: of the corpus; the name of the folder or file where None.

    Returns:
        Utterances sorted by id. `counts["cut_intervals"]` says how many intervals were cut by at most a
        frame; `counts["straddling_intervals"]` how many were dropped because a stretch of a manifest begins
        or ends in them.

    Raises:
        CorpusError: there is no corpus here, a folder cannot be read, a manifest line is bad, or two
            utterances have the same id.
        AudioError: a recording is missing, unreadable, empty or shorter than 25 ms.
        TranscriptError: a transcript cannot be read, or stands without a recording.
        AlignmentError: times overlap or run past the end by more than a frame (320 samples), a label is not
            in the phone set, or an alignment that was asked for is missing.
    """
    if phone_set is not None and phone_set not in PHONE_SETS:
        raise AlignmentError(
            f"There is no phone set {phone_set!r}",
            f"Choose one of {', '.join(PHONE_SETS)}, or None (--phone-set none) for labels as they stand.",
        )
    root = Path(path).expanduser().resolve()
    given = None if alignments is None else Path(alignments).expanduser().resolve()
    listing, folders, base = _list(root)
    if listing.problems and not skip_bad:
        raise listing.problems[0][1]
    files_of_stem: dict[str, set[Path]] = {}
    for entry in listing.entries:
        files_of_stem.setdefault(entry.path.stem, set()).add(entry.path)
    unique = frozenset(stem for stem, paths in files_of_stem.items() if len(paths) == 1)
    finder = AlignmentFinder(folders, given, unique)

    left_out = [LeftOut(what, str(error)) for what, error in listing.problems]
    counts = {"cut_intervals": 0, "straddling_intervals": 0}
    utterances: list[Utterance] = []
    probed: dict[Path, AudioSource] = {}
    for entry in listing.entries:
        try:
            if entry.path not in probed:
                probed[entry.path] = probe(entry.path)
            source = _stretch(probed[entry.path], entry)
            tiers, cut, dropped = _tiers(entry, source, finder, phone_set)
        except SpeechError as error:
            named = _at(entry, error)
            if not skip_bad:
                raise named from error
            left_out.append(LeftOut(_printable(entry.id), str(named)))
            continue
        counts["cut_intervals"] += cut
        counts["straddling_intervals"] += dropped
        utterances.append(Utterance(entry.id, entry.speaker, entry.transcript, source.n_samples, tiers, source))
    if not utterances:
        why = "it is empty"
        if left_out:
            why = f"all {len(left_out)} are left out, the first because: {left_out[0].reason}"
        raise CorpusError(f"No utterance of {root} can be used; {why}", "Correct the corpus or choose another.")
    return Corpus(
        name or (root.stem if root.is_file() else root.name),
        tuple(utterances),
        base,
        tuple(left_out),
        {key: n for key, n in counts.items() if n},
    )


def _list(root: Path) -> tuple[Listing, list[list[Path]], Path]:
    """The listing of a path, the lists of files to search for alignments, and the corpus's folder."""
    what = kind(root)
    if what == "folder":
        files = walk(root)
        if not any(path.suffix.lower() in AUDIO_SUFFIXES for path in files):
            manifests = [path.name for path in files if path.suffix.lower() in MANIFEST_SUFFIXES]
            hint = f" Its manifest {manifests[0]} may be what you want." if manifests else ""
            raise CorpusError(
                f"{root} holds no recordings ({', '.join(sorted(AUDIO_SUFFIXES))})",
                f"Give a folder with recordings, or a JSON-lines manifest.{hint}",
            )
        return list_folder(root, files), [files, walk(root.parent / "alignments")], root
    if what is None:
        raise CorpusError(f"No corpus at {root}", "Check the path: give a folder, a manifest or a recording.")
    if root.suffix.lower() in MANIFEST_SUFFIXES:
        folder = root.parent
        folders = [walk(folder / "alignments"), walk(folder.parent / "alignments")]
        return list_manifest(root), folders, folder
    if root.suffix.lower() in AUDIO_SUFFIXES:
        # Listed with its folder for the transcript and speaker; what is wrong with its neighbours is ignored.
        members = [path for path in _siblings(root) if path == root or not _is_audio(path)]
        listing = list_folder(root.parent, [path for path in members if path.is_file()])
        return Listing(listing.entries, ()), [], root.parent
    raise CorpusError(
        f"{root} is neither a manifest ({', '.join(MANIFEST_SUFFIXES)}) nor a recording",
        f"Give a folder, a manifest or a recording; recordings end in {', '.join(sorted(AUDIO_SUFFIXES))}.",
    )


def _siblings(path: Path) -> list[Path]:
    try:
        return sorted(path.parent.iterdir())
    except OSError as error:
        refuse(error)


def _is_audio(path: Path) -> bool:
    return path.suffix.lower() in AUDIO_SUFFIXES


def _stretch(source: AudioSource, entry: Entry) -> AudioSource:
    """The part of a recording that an entry asks for, borders rounded to its samples."""
    if not entry.offset and entry.duration is None:
        return source
    start = to_samples(entry.offset, source.rate)
    end = source.frames if entry.duration is None else to_samples(entry.offset + entry.duration, source.rate)
    if (end - source.frames) * RATE > FRAME * source.rate or start >= source.frames:
        raise AudioError(
            f"{entry.path} is {source.frames / source.rate:.4f} s long; the stretch from {entry.offset} s"
            f" to {end / source.rate:.4f} s runs past its end",
            "Correct offset and duration in the manifest, or leave it out with skip_bad=True (--skip-bad).",
        )
    end = min(end, source.frames)
    stretch = replace(source, start=start, frames=end - start)
    check_length(stretch.n_samples, f"{entry.path} from {entry.offset} s")
    return stretch


def _tiers(
    entry: Entry, source: AudioSource, finder: AlignmentFinder, phone_set: str | None
) -> tuple[dict[str, tuple[Interval, ...]], int, int]:
    """Tiers of an entry, how many intervals were cut, and how many dropped at the borders of a stretch."""
    found = finder.find(entry.id, entry.path)
    if found is None:
        if finder.given is not None:
            raise AlignmentError(
                f"{finder.given} has no alignment of {entry.id}",
                "Add it, or leave the utterance out with skip_bad=True (--skip-bad).",
            )
        return {}, 0, 0
    raw, dropped = found.raw, 0
    if found.whole and (entry.offset or entry.duration is not None):
        raw = {}
        start = to_samples(entry.offset, RATE)
        for tier, times in found.raw.items():
            raw[tier], n = within(times, start, source.n_samples)
            dropped += n
    tiers, cut = build_tiers(raw, source.n_samples, found.where, phone_set)
    return tiers, cut, dropped


def _printable(name: str) -> str:
    """A name as UTF-8 can hold it: bytes of a file name that were not decoded are spelt out."""
    return name.encode("utf-8", "backslashreplace").decode()


def _at(entry: Entry, error: OtoscopeError) -> OtoscopeError:
    """The same error with the place in a manifest before it."""
    if entry.place == str(entry.path):
        return error
    return type(error)(f"{entry.place}: {error.problem}", error.cure)
