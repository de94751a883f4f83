"""Voices made up from recorded ones: other durations, pitches and vocal tracts of flite's three training voices."""

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from otoscope.speech import read_corpus
from otoscope.speech.synthesis.rendering import TALLY, Job, render_apart
from otoscope.speech.synthesis.sentences import Sentences
from otoscope.speech.synthesis.speakers import Speaker

_SHORTEST = 1.0  # second that a sentence lasts on average at the least


@dataclass(frozen=True)
class Recorded:
    """A recorded voice, how many are made of it, and within which factors."""

    name: str
    count: int
    pitch: tuple[float, float]
    formants: tuple[float, float]


_RECORDED = (
    Recorded("slt", 20, (0.5, 1.15), (0.8, 1.1)),
    Recorded("awb", 16, (0.75, 1.6), (0.88, 1.2)),
    Recorded("kal16", 12, (0.75, 1.6), (0.88, 1.2)),
)
_STRETCH = (0.85, 1.3)


def made_up_voices() -> list[Speaker]:
    """The voices, always the same."""
    table = []
    for recorded in _RECORDED:
        for k in range(recorded.count):
            name = f"{recorded.name}_made_up_{k:02d}"
            draw = random.Random(name)
            stretch, pitch, formants = (
                round(draw.uniform(*one), 3) for one in (_STRETCH, recorded.pitch, recorded.formants)
            )
            table.append(Speaker(name, "train", "flite", recorded.name, None, stretch, pitch, formants))
    return table


def render_voices(folder: Path, common: Path, words: int, seconds: float, seed: int) -> None:
    """Renders the voices, each in a folder of its own; those that are there already are left as they are.

    Args:
        folder: gets the speakers.
        common: speech of the same vocabulary; no sentence of its dev and exam is said here.
        words: of each kind, the most frequent.
        seconds: of each voice.
        seed: of the sentences.
    """
    kept = {utterance.transcript for split in ("dev", "exam") for utterance in read_corpus(common / split)}
    sentences = _new(Sentences(seed, words), kept)
    count = round(seconds / _SHORTEST) + 20
    jobs = [Job(one, [next(sentences) for _ in range(count)], seconds, seed, str(folder)) for one in made_up_voices()]
    with ThreadPoolExecutor(2) as pool:
        for _ in pool.map(render_apart, (job for job in jobs if not (folder / job.speaker.name / TALLY).exists())):
            pass


def _new(sentences: Sentences, kept: set[str | None]) -> Iterator[str]:
    while True:
        text = sentences.new()
        if text not in kept:
            yield text
