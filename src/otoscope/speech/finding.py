"""Where the alignment of a recording is."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NoReturn

from otoscope.errors import AlignmentError, CorpusError
from otoscope.speech.alignments import Times, read_ctm
from otoscope.speech.textgrids import read_textgrid


def walk(folder: Path) -> list[Path]:
    """All files below a folder, sorted, without those in hidden folders or with hidden names.

    Links to folders are followed, after all real folders, so that what can be reached both ways has its real
    path; no folder is read twice. A link to a folder that it lies in is not followed.

    Args:
        folder: where to start; where there is no such folder, there are no files.

    Raises:
        CorpusError: a folder cannot be read.
    """
    found: list[Path] = []
    seen: set[str] = set()
    links = [str(folder)] if kind(folder) == "folder" else []
    while links:
        more: list[str] = []
        for link in sorted(links):
            for parent, folders, files in os.walk(link, onerror=refuse):
                real = os.path.realpath(parent)
                if real in seen:
                    folders.clear()
                    continue
                seen.add(real)
                folders[:] = sorted(name for name in folders if not name.startswith("."))
                inside = [Path(parent) / name for name in folders]
                more += [str(path) for path in inside if path.is_symlink() and not _above(path, real)]
                found += [Path(parent) / name for name in files if not name.startswith(".")]
        links = more
    return sorted(found)


def _above(link: Path, real: str) -> bool:
    """Whether a link in the folder `real` leads to that folder or one above it."""
    return Path(real).is_relative_to(os.path.realpath(link))


def refuse(error: OSError) -> NoReturn:
    """Refuses a folder that cannot be read.

    Raises:
        CorpusError: always; names the folder.
    """
    raise CorpusError(
        f"The folder {error.filename} cannot be read: {error.strerror or error}",
        "Allow yourself to read and enter it (chmod u+rx), or move it out of the corpus.",
    ) from error


def kind(path: Path) -> Literal["folder", "file"] | None:
    """What is at a path, or None where nothing is.

    Raises:
        CorpusError: that cannot be found out, for a folder above may not be entered.
    """
    try:
        return "folder" if path.is_dir() else "file" if path.is_file() else None
    except PermissionError as error:
        raise CorpusError(
            f"{path} cannot be reached: permission denied",
            "Allow yourself to read and enter the folders above it (chmod u+rx), or choose another path.",
        ) from error
    except OSError:
        # A name longer than names may be is the usual one: nothing can have it.
        return None


@dataclass(frozen=True, slots=True)
class Found:
    """An alignment as it was found.

    Attributes:
        raw: times by tier, in samples.
        where: the file.
        whole: times count from the start of the recording, not of a stretch of it.
    """

    raw: dict[str, Times]
    where: str
    whole: bool


class AlignmentFinder:
    """Finds the alignment of each recording.

    The TextGrid with the recording's name beside it comes first, then one of that name in `folders`, in their
    order. If several in a folder have it, the one whose path agrees with that of the recording in most parts,
    from the end, is taken. Where `given` names a folder or file, TextGrids and CTM files in it are used, and
    nothing else.

    Args:
        folders: lists of files to search, in order.
        given: a folder of TextGrids or CTM files, or one such file, or None.
        unique: stems that belong to only one recording; for another stem the parent folder must agree too.

    Raises:
        AlignmentError: `given` does not exist or holds no alignments, or a CTM file cannot be read.
        CorpusError: a folder of `given` cannot be read.
    """

    def __init__(self, folders: Iterable[list[Path]], given: Path | None, unique: frozenset[str]) -> None:
        self.given = given
        self.unique = unique
        self.ctm: dict[str, dict[str, Times]] = {}
        self.ctm_files: dict[str, str] = {}
        if given is None:
            self.indices = [_by_stem(files) for files in folders]
            return
        what = kind(given)
        if what is None:
            raise AlignmentError(f"No alignments at {given}", "Give a folder of TextGrids or a CTM file.")
        files = [given] if what == "file" else walk(given)
        self.indices = [_by_stem(files)]
        for path in files:
            if path.suffix.lower() == ".ctm":
                self._add_ctm(path)
        if not self.indices[0] and not self.ctm:
            raise AlignmentError(
                f"{given} holds no alignments", "Give a folder of TextGrids or CTM files (.TextGrid, .ctm)."
            )

    def find(self, name: str, audio: Path) -> Found | None:
        """The alignment of an utterance.

        Args:
            name: its id.
            audio: its recording.

        Returns:
            The alignment, or None where there is none.

        Raises:
            AlignmentError: the file cannot be read, or several fit equally well.
        """
        names = dict.fromkeys([name, audio.stem])
        for key in names:
            if key in self.ctm:
                return Found(self.ctm[key], self.ctm_files[key], key == audio.stem)
        if self.given is None:
            for suffix in (".TextGrid", ".textgrid"):
                beside = audio.with_suffix(suffix)
                if kind(beside) == "file":
                    return Found(read_textgrid(beside), str(beside), True)
        for index in self.indices:
            for key in names:
                path = self._choose(index.get(key, []), audio, key)
                if path is not None:
                    return Found(read_textgrid(path), str(path), key == audio.stem)
        return None

    def _choose(self, candidates: list[Path], audio: Path, key: str) -> Path | None:
        agreement = [(_shared_parts(path, audio), path) for path in candidates]
        if key == audio.stem and key not in self.unique:
            agreement = [(n, path) for n, path in agreement if n >= 2]
        if not agreement:
            return None
        most = max(n for n, _ in agreement)
        best = [path for n, path in agreement if n == most]
        if len(best) > 1:
            raise AlignmentError(
                f"{len(best)} TextGrids fit {audio} equally well: {best[0]} and {best[1]}",
                "Lay the alignments out as the recordings are, or pass one folder as alignments=.",
            )
        return best[0]

    def _add_ctm(self, path: Path) -> None:
        for name, raw in read_ctm(path).items():
            own = self.ctm.setdefault(name, {})
            for tier, times in raw.items():
                if tier in own:
                    raise AlignmentError(
                        f"{path} gives {tier}s of {name} a second time, after {self.ctm_files[name]}",
                        "Keep one CTM file a tier for every utterance.",
                    )
                own[tier] = times
            self.ctm_files[name] = str(path)


def _by_stem(files: Iterable[Path]) -> dict[str, list[Path]]:
    index: dict[str, list[Path]] = defaultdict(list)
    for path in files:
        if path.suffix.lower() == ".textgrid":
            index[path.stem].append(path)
    return dict(index)


def _shared_parts(one: Path, other: Path) -> int:
    """How many parts of two paths agree, from the end; the last without its ending."""
    n = 0
    for a, b in zip(reversed([*one.parts[:-1], one.stem]), reversed([*other.parts[:-1], other.stem]), strict=False):
        if a != b:
            break
        n += 1
    return n
