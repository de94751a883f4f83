"""Spoken commands of a small vocabulary: train, dev and exam, apart by voice and by sentence."""

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from otoscope.speech import Corpus, read_corpus
from otoscope.speech.synthesis.rendering import TALLY, Job, render_apart
from otoscope.speech.synthesis.speakers import SPLITS, Speaker, Split, speakers

VERBS = "bring take move find drop count".split()
NUMBERS = "one two three four five six seven eight nine".split()
COLOURS = "red blue green white black yellow".split()
THINGS = "boxes cups books keys stones".split()
PLACES = "door table window garden".split()
WHERE = "near under behind".split()
SECONDS = {"train": 25.0, "dev": 25.0, "exam": 40.0}  # of each speaker
FASTEST = 160  # words a minute: a character must last a frame of 40 ms, a doubled one two
_SHORTEST = 0.8  # seconds that a command lasts on average at the least


def command(draw: random.Random) -> str:
    """A command of three to seven words, or a number read digit by digit.

    >>> command(random.Random(0))
    'count the green cups near the table'
    """
    kind = draw.random()
    if kind < 0.2:
        return " ".join(draw.choice(NUMBERS) for _ in range(draw.randint(3, 6)))
    amount = draw.choice([*NUMBERS, *["the"] * 4])
    text = f"{draw.choice(VERBS)} {amount} {draw.choice(COLOURS)} {draw.choice(THINGS)}"
    if kind < 0.45:
        return text
    return f"{text} {draw.choice(WHERE)} the {draw.choice(PLACES)}"


def render_commands(folder: Path, seed: int = 0, scale: float = 1.0) -> None:
    """Renders the three splits; speakers that are there already are left as they are.

    Args:
        folder: gets `train`, `dev` and `exam`.
        seed: of commands, and of the small changes of rate and pitch between them.
        scale: of the seconds of each speaker.
    """
    commands = _apart(random.Random(f"commands {seed}"))
    jobs = []
    for split in SPLITS:
        seconds = scale * SECONDS[split]
        for speaker in voices(split):
            sentences = [next(commands) for _ in range(round(seconds / _SHORTEST) + 20)]
            jobs.append(Job(speaker, sentences, seconds, seed, str(folder / split)))
    with ThreadPoolExecutor(2) as pool:
        for _ in pool.map(render_apart, [job for job in jobs if not (_place(job) / TALLY).exists()]):
            pass


def read_commands(folder: Path) -> dict[Split, Corpus]:
    """The corpora that `render_commands` wrote, by split."""
    return {split: read_corpus(folder / split) for split in SPLITS}


def voices(split: Split) -> list[Speaker]:
    """Who speaks in a split, none too fast."""
    return [replace(one, rate=min(one.rate, FASTEST)) for one in speakers(split, flite=False)]


def _apart(draw: random.Random) -> Iterator[str]:
    """Commands of which none comes twice."""
    said: set[str] = set()
    while True:
        text = command(draw)
        if text not in said:
            said.add(text)
            yield text


def _place(job: Job) -> Path:
    return Path(job.folder) / job.speaker.name
