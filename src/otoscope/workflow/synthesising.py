"""Renders a labelled corpus with espeak-ng and flite: train, dev and exam, kept apart by voice and by sentence."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from otoscope._version import __version__
from otoscope.errors import CorpusError, MissingPackageError, SpeechError
from otoscope.speech.audio import RATE
from otoscope.speech.locking import alone_in

if TYPE_CHECKING:
    from otoscope.speech.synthesis.rendering import Job

MANIFEST = "corpus.json"
_FORMAT = 1
_FEWEST_COMMON = 3  # fewer make too few sentences for long corpora
_SNR, _RT60 = (5.0, 20.0), (0.2, 0.8)


@dataclass(frozen=True)
class Synthesis:
    """What was rendered.

    Attributes:
        folder: where it lies.
        splits: for each split the hours, speakers, sentences and words.
        seconds: how long this run took.
        rendered: speakers that this run rendered; the others were there.
    """

    folder: Path
    splits: dict[str, dict[str, float]]
    seconds: float
    rendered: int


def synthesise(
    folder: str | Path,
    hours: float,
    seed: int = 0,
    *,
    flite: bool = True,
    common: int | None = None,
    noise: Sequence[str] = (),
    snr: tuple[float, float] | None = None,
    rooms: bool = False,
    rt60: tuple[float, float] | None = None,
    workers: int | None = None,
    progress: Callable[[float, float], None] | None = None,
) -> Synthesis:
    """Renders `train`, `dev` and `exam` as LibriSpeech lays them out, with a TextGrid beside each recording.

    `folder/split/speaker/1/speaker-1-0001.flac`. No sentence comes twice in the corpus, and no voice of dev and exam
    speaks in train. Every speaker of a split speaks equally long. The files depend on all settings but `workers`;
    noise and rooms leave sentences and times as they are without them. What an interrupted run left is kept and gone
    on with.

    Args:
        folder: must be new, empty, or what a run with the same settings left.
        hours: of train, at least 0.001. Dev and exam are a twentieth of it each, but at least 3 and 6 minutes, or as
            much as train where that is less. Below about 20 minutes fewer speakers are heard.
        seed: of sentences and of the small changes of rate and pitch between them.
        flite: whether flite's recorded voices speak too (a tenth of train, a ninth of exam).
        common: of each kind of word this many, the most frequent: a small vocabulary, which small models can learn;
            None for all words.
        noise: kinds of noise that are added, of "white", "pink" and "babble"; none where empty. Those who babble are
            speakers of the same split.
        snr: the least and the greatest signal-to-noise ratio of added noise, dB, over a whole recording; 5 and 20 where
            None.
        rooms: whether each recording is heard in a room of its own.
        rt60: the least and the greatest reverberation time of these rooms, seconds; 0.2 and 0.8 where None.
        workers: processes at a time; as many as there are cores where None.
        progress: called with seconds of speech done and in all.

    Returns:
        What lies in the folder, and how long it took.

    Raises:
        CorpusError: hours, workers or `common` are no positive number, the folder holds something else or a corpus of
            other settings, or another process renders into it.
        MissingPackageError: espeak-ng or flite is not installed.
        SpeechError: a synthesiser fails, a kind of noise or a range makes no sense, or a range is given for noise or
            rooms that are not asked for.
    """
    from otoscope.speech.synthesis.effects import Effects
    from otoscope.speech.synthesis.planning import plan

    began = time.monotonic()
    if not (math.isfinite(hours) and 0.001 <= hours <= 1000):
        raise CorpusError(f"{hours} hours cannot be rendered", "Give a number from 0.001 to 1000.")
    if common is not None and common < _FEWEST_COMMON:
        raise CorpusError(
            f"{common} words of each kind make too few sentences", f"Give at least {_FEWEST_COMMON}, or leave it out."
        )
    workers = _cores() if workers is None else workers
    if workers < 1:
        raise CorpusError(f"{workers} workers cannot render anything", "Give at least 1.")
    if snr is not None and not noise:
        raise SpeechError(
            f"A signal-to-noise ratio {snr} is given, and no noise is added",
            "Name kinds of noise, as in --noise pink,babble, or leave the ratio out.",
        )
    if rt60 is not None and not rooms:
        raise SpeechError(
            f"A reverberation time {rt60} is given, and there are no rooms",
            "Ask for rooms (--rooms), or leave the time out.",
        )
    effects = Effects(tuple(noise), snr or _SNR, (rt60 or _RT60) if rooms else None)
    versions = _versions(flite)
    folder = Path(folder).expanduser()
    jobs, babble = plan(folder, hours, seed, flite, effects, common)
    settings = {
        "format": _FORMAT,
        "hours": hours,
        "seed": seed,
        "flite": flite,
        "common": common,
        "effects": asdict(effects) if effects else None,
        "programs": versions,
        "splits": {
            split: {
                "seconds": round(sum(job.seconds for job in part), 3),
                "speakers": [asdict(job.speaker) for job in part],
            }
            for split, part in jobs.items()
        },
    }
    _claim(folder, settings)
    with _alone(folder):
        waiting = _left([job for part in jobs.values() for job in part])
        if waiting:
            _render_all(_left(babble), workers, lambda done: None)
        total = sum(job.seconds for part in jobs.values() for job in part)
        before = total - sum(job.seconds for job in waiting)
        _render_all(waiting, workers, lambda done: progress(before + done, total) if progress else None)
        _clear(folder, jobs)
        _write_manifest(folder, {**settings, "complete": True})
    return Synthesis(folder, _count(folder, jobs), time.monotonic() - began, len(waiting))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _versions(flite: bool) -> dict[str, str]:
    """Versions of the programs that speak, since others would say the same sentences otherwise."""
    from otoscope.speech.synthesis import Espeak, Flite

    versions = {"otoscope": __version__, "espeak-ng": Espeak().version}
    if flite:
        try:
            versions["flite"] = Flite().version
        except MissingPackageError as error:
            raise MissingPackageError(
                error.problem, f"{error.cure}. Or go without its voices: flite=False (--no-flite)."
            ) from error
    return versions


def _left(jobs: list[Job]) -> list[Job]:
    """The jobs that are not done yet; those of flite, the slow one, first, lest they be waited for at the end."""
    left = [job for job in jobs if not (Path(job.folder) / job.speaker.name).exists()]
    return sorted(left, key=lambda job: job.speaker.engine != "flite")


def _claim(folder: Path, settings: dict[str, Any]) -> None:
    """Makes the folder ours, or finds that it is.

    Raises:
        CorpusError: it holds something else, or a corpus of other settings.
    """
    path = folder / MANIFEST
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not path.is_file())):
        raise CorpusError(f"{folder} exists and holds no corpus of otoscope's", "Choose another folder.")
    if not path.is_file():
        _write_manifest(folder, {**settings, "complete": False})
        return
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CorpusError(f"{path} cannot be read: {error}", "Choose another folder.") from error
    held.pop("complete", None)
    for key, value in json.loads(json.dumps(settings)).items():
        if held.get(key) != value:
            what = f"{key} {held.get(key)}, not {value}" if key != "splits" else "other speakers"
            raise CorpusError(
                f"{folder} holds a corpus with {what}",
                "Choose another folder, remove this one, or ask for what it holds.",
            )


def _alone(folder: Path) -> contextlib.AbstractContextManager[None]:
    """Keeps other runs out of the folder."""
    cure = "Wait until it is done, or choose another folder."
    return alone_in(folder, CorpusError(f"Another process renders into {folder}", cure))


def _clear(folder: Path, splits: Iterable[str]) -> None:
    """Removes those who babbled, and what interrupted runs left half."""
    from otoscope.speech.synthesis.rendering import PARTIAL

    shutil.rmtree(folder / ".babble", ignore_errors=True)
    for split in splits:
        for half in (folder / split).glob(f".*{PARTIAL}"):
            shutil.rmtree(half, ignore_errors=True)


def _write_manifest(folder: Path, told: dict[str, Any]) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f".{MANIFEST}.partial"
        partial.write_text(f"{json.dumps(told, indent=1)}\n", encoding="utf-8")
        partial.rename(folder / MANIFEST)
    except OSError as error:
        raise CorpusError(f"{folder} cannot be written: {error.strerror or error}", "Choose another folder.") from error


def _render_all(jobs: list[Job], workers: int, done: Callable[[float], None]) -> None:
    """Renders, and calls `done` with the seconds of speech that lie there so far."""
    from otoscope.speech.synthesis.rendering import render_apart

    seconds = 0.0
    done(seconds)
    with ThreadPoolExecutor(workers) as pool:
        waiting = {pool.submit(render_apart, job): job for job in jobs}
        try:
            for future in as_completed(waiting):
                future.result()
                seconds += waiting[future].seconds
                done(seconds)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _count(folder: Path, jobs: dict[str, list[Job]]) -> dict[str, dict[str, float]]:
    from otoscope.speech.synthesis.rendering import read_tally

    counted: dict[str, dict[str, float]] = {}
    for split, part in jobs.items():
        tallies = [read_tally(folder / split / job.speaker.name) for job in part]
        counted[split] = {
            "hours": sum(one.samples for one in tallies) / RATE / 3600,
            "speakers": len(tallies),
            "sentences": sum(one.sentences for one in tallies),
            "words": sum(one.words for one in tallies),
        }
    return counted
